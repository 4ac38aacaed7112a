"""The trials of a run, best first, and the runs of a home: tables and documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunery import tasks
from tunery.errors import NotFoundError
from tunery.report import words
from tunery.runs import RunState, StudyState, TrialState, Value

Draws = Mapping[str, Mapping[str, Value]]
"""Study -> its default draw."""
NO_DEFAULTS: Draws = {}


def direction(study: StudyState) -> Literal["maximise", "minimise"]:
    """Where the study's objective is to go."""
    try:
        return tasks.get(study.task).direction
    except NotFoundError:  # a task that this version does not know: nearly all are scores
        return "maximise"


def ranked(study: StudyState) -> list[TrialState]:
    """Its trials, best first in the task's own direction; those without a value last, in their own order."""
    sign = -1.0 if direction(study) == "maximise" else 1.0

    def key(trial: TrialState) -> tuple[bool, float, int]:
        value = trial.objective
        missing = value is None or math.isnan(value)
        return (missing, 0.0 if missing or value is None else sign * value, trial.number)

    return sorted(study.trials, key=key)


def is_default(trial: TrialState, default: Mapping[str, Value] | None) -> bool:
    """Whether the trial has exactly the values that the spec itself gives."""
    return bool(default) and dict(trial.config) == dict(default or {})


def document(state: RunState, defaults: Draws = NO_DEFAULTS) -> dict[str, Any]:
    """All trials of a run: `{run_id, name, status, studies: [{study, objective, ..., trials}]}`, best first."""
    return {
        "run_id": state.run_id,
        "name": state.name,
        "status": state.status,
        "studies": [
            {
                "study": study.name,
                "task": study.task,
                "cell": dict(study.cell),
                "objective": study.objective,
                "direction": direction(study),
                "best": study.best,
                "trials": [_trial_document(trial, defaults.get(study.name)) for trial in ranked(study)],
            }
            for study in state.studies
        ],
    }


def _trial_document(trial: TrialState, default: Mapping[str, Value] | None) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "status": trial.status,
        "default": is_default(trial, default),
        "objective": trial.objective,
        "metrics": dict(trial.metrics),
        "config": dict(trial.config),
        "epoch": trial.epoch,
        "epochs": trial.epochs,
        "step": trial.step,
        "steps": trial.steps,
        "examples_per_s": trial.examples_per_s,
        "seconds": _seconds(trial),
        "error": trial.error,
    }


def comparison(studies: Sequence[StudyState], defaults: Draws = NO_DEFAULTS) -> RenderableType:
    """A table a study, its trials best first, and below it why some have failed."""
    parts: list[RenderableType] = []
    for study in studies:
        default = defaults.get(study.name)
        goal = {"maximise": "more is better", "minimise": "less is better"}[direction(study)]
        title = Text.assemble((study.name, "bold"), "  ", (f"{study.objective}, {goal}", "dim"))
        parts += [Text(), title, _trials_table(study, default)]
        if any(is_default(trial, default) for trial in study.trials):
            parts.append(Text("* the values that the spec itself gives", "dim"))
        parts += [_failure(trial) for trial in study.trials if trial.error]
    return Group(*parts[1:])


def _trials_table(study: StudyState, default: Mapping[str, Value] | None) -> Table:
    paths = tuple(dict.fromkeys(path for trial in study.trials for path in trial.config))
    short = words.short_names(paths)
    metrics = [name for name in _metric_names(study) if name != study.objective]
    numbers = ("trial", study.objective, *metrics, *short.values(), "epoch", "time")
    columns = ("trial", "status", study.objective, *short.values(), *metrics, "epoch", "time")
    # Whatever has to give way on a narrow screen gives way from the right: the header wraps, numbers stay whole.
    table = words.table(*columns, numbers=numbers)
    for column in table.columns[2:]:
        column.no_wrap = False
        column.overflow = "fold"
    for trial in ranked(study):
        best = trial.number == study.best
        seconds = _seconds(trial)
        table.add_row(
            f"{'*' if is_default(trial, default) else ''}{trial.number}",
            words.status(trial.status),
            Text(words.number(trial.objective), "bold green" if best else ""),
            *(words.setting(trial.config[path]) if path in trial.config else "" for path in paths),
            *(Text(words.number(trial.metrics.get(name)), "dim") for name in metrics),
            words.epoch(trial),
            words.duration(seconds) if seconds is not None else "",
        )
    return table


def _failure(trial: TrialState) -> RenderableType:
    return Padding(Text(f"trial {trial.number}: {words.first_line(trial.error)}", "red"), (0, 0, 0, 2), expand=False)


def _metric_names(study: StudyState) -> Iterable[str]:
    return dict.fromkeys(name for trial in study.trials for name in trial.metrics)


def _seconds(trial: TrialState) -> float | None:
    if trial.started_at is None or trial.ended_at is None:
        return None
    return max(0.0, trial.ended_at - trial.started_at)


def runs_document(states: Iterable[RunState]) -> dict[str, Any]:
    """`{runs: [{run_id, name, status, studies, trials, ended_trials, started_at, ended_at, error}]}`, newest first."""
    return {
        "runs": [
            {
                "run_id": state.run_id,
                "name": state.name,
                "status": state.status,
                "studies": [study.name for study in state.studies],
                "trials": words.planned(state),
                "ended_trials": words.ended(state),
                "started_at": state.started_at or None,
                "ended_at": state.ended_at,
                "error": state.error,
            }
            for state in states
        ]
    }


def runs_table(states: Iterable[RunState], *, now: float) -> RenderableType:
    """The runs of a home, newest first."""
    table = words.table("run", "status", "trials", "took", "started", "studies", numbers=("trials", "took"))
    table.columns[-1].no_wrap = False
    for state in states:
        took = (state.ended_at or now) - state.started_at
        table.add_row(
            Text(state.run_id, "bold"),
            words.status(state.status),
            f"{words.ended(state)}/{words.planned(state)}",
            words.duration(took) if state.started_at and state.status != "interrupted" else "",
            words.ago(now - state.started_at) if state.started_at else "",
            words.cut(", ".join(study.name for study in state.studies), "dim"),
        )
    return table
