"""Configurations that were trained again with other seeds, and how they stand. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunery.runs import StudyState, TrialState, Value

Direction = Literal["maximise", "minimise"]


@dataclass(frozen=True)
class Standing:
    """One configuration over its seeds."""

    trial: int
    """The search's trial that found it."""
    config: Mapping[str, Value]
    runs: tuple[int, ...]
    """Numbers of its reruns that ran to their end."""
    failed: int
    """Its reruns that did not."""
    mean: float | None
    """Of the objective over `runs`, without the search's own run: that one was chosen for its score, luck included."""
    deviation: float | None
    """Sample standard deviation over `runs`; None for fewer than two."""
    best_run: int
    """Number of its best run, the search's own among them."""


def standings(study: StudyState, *, direction: Direction) -> list[Standing]:
    """The configurations that were run again, best mean first; one with a failed run comes after all without."""
    sign = -1.0 if direction == "maximise" else 1.0
    trials = {trial.number: trial for trial in study.trials}
    reruns: dict[int, list[TrialState]] = {}
    for trial in study.trials:
        if trial.rerun_of is not None:
            reruns.setdefault(trial.rerun_of, []).append(trial)
    found = [_standing(trials[number], runs, sign) for number, runs in reruns.items() if number in trials]

    def key(standing: Standing) -> tuple[bool, int, float, int]:
        mean = standing.mean
        return (mean is None, standing.failed, sign * mean if mean is not None else 0.0, standing.trial)

    return sorted(found, key=key)


def _standing(own: TrialState, reruns: list[TrialState], sign: float) -> Standing:
    finished = [trial for trial in reruns if trial.status == "finished" and trial.objective is not None]
    values = [trial.objective for trial in finished if trial.objective is not None]
    best = min((own, *finished), key=lambda trial: (sign * (trial.objective or 0.0), trial.number))
    return Standing(
        trial=own.number,
        config=own.config,
        runs=tuple(trial.number for trial in finished),
        failed=sum(trial.status == "failed" for trial in reruns),
        mean=statistics.mean(values) if values else None,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        best_run=best.number,
    )


def standing_of(study: StudyState, number: int | None, *, direction: Direction) -> Standing | None:
    """That of a trial's configuration; None where it was not run again."""
    found = standings(study, direction=direction)
    return next((each for each in found if number is not None and number in (each.trial, *each.runs)), None)
