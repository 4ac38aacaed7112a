"""A run as its documents see it: a result a study, the axes along which studies differ, each evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeGuard

from tunery.errors import NotFoundError
from tunery.plan import Plan
from tunery.report import words
from tunery.report.documents.curves import Curves
from tunery.report.trials import Draws, seconds
from tunery.runs import RunState, StudyState, TrialState, Value
from tunery.spec import SearchSpec
from tunery.standings import Standing, standing_of

GB = 1e9
METHOD = "tuner.method"
DATA = "data.max_train"
MODEL = "model.id"


@dataclass(frozen=True)
class Result:
    """One study and what came of it."""

    study: StudyState
    best: TrialState | None
    standing: Standing | None
    """Of the best configuration over other seeds; None where it was not trained again."""
    seconds: float
    """That all of its trials were under way, added up."""
    best_seconds: float

    @property
    def score(self) -> float | None:
        """Of the best trial."""
        return self.best.objective if self.best else None

    @property
    def tested(self) -> Standing | None:
        """The standing, where there are enough runs for a deviation."""
        return self.standing if self.standing and self.standing.deviation is not None else None

    def metric(self, formula: str) -> float | None:
        """The best trial's first metric by that formula: `f1` finds `f1` and `f1_mm`."""
        measured = self.best.metrics if self.best else {}
        return next((value for name, value in measured.items() if name.partition("_")[0] == formula), None)

    def measured(self, name: str) -> float | None:
        """The best trial's metric of that name."""
        return self.best.metrics.get(name) if self.best else None

    @property
    def trainable_share(self) -> float | None:
        trained, total = self.measured("trainable_parameters"), self.measured("total_parameters")
        return trained / total if trained is not None and total else None

    @property
    def peak_gb(self) -> float | None:
        """Of a pack's worker with all its seats, in 10^9 bytes."""
        peak = self.measured("peak_memory_bytes")
        return peak / GB if peak is not None else None

    def count(self, status: str) -> int:
        return sum(trial.status == status for trial in self.study.trials)


@dataclass(frozen=True)
class Facts:
    """Everything that the documents say."""

    state: RunState
    curves: Curves = field(default_factory=Curves)
    searches: Mapping[str, SearchSpec] = field(default_factory=dict)
    """By study; empty where the plan cannot be read."""
    defaults: Draws = field(default_factory=dict)

    @cached_property
    def results(self) -> tuple[Result, ...]:
        return tuple(self._result(study) for study in self.state.studies)

    @cached_property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """Paths of the matrix that have several values, with them: numbers in order, others as the matrix has them."""
        values: dict[str, list[Value]] = {}
        for study in self.state.studies:
            for path, value in study.cell.items():
                if value not in values.setdefault(path, []):
                    values[path].append(value)
        return {path: tuple(sorted_values(found)) for path, found in values.items() if len(found) > 1}

    @property
    def tasks(self) -> dict[str, list[Result]]:
        """Task -> its studies' results."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.study.task, []).append(result)
        return found

    @property
    def as_of(self) -> datetime:
        """When the run last changed, or ended."""
        return datetime.fromtimestamp(self.state.ended_at or self.state.updated_at, UTC)

    def label(self, result: Result, *, without: Sequence[str] = ()) -> str:
        """The cell of a study in words, `method lora, max_train 20000`; empty where there is one cell."""
        cell = result.study.cell
        kept = [path for path in self.axes if path not in without and path in cell]
        return ", ".join(f"{self.names[path]} {self.said(path, cell[path])}" for path in kept)

    def said(self, path: str, value: Value) -> str:
        """A value of the matrix in a word: a model's folder or id by its last part, where that tells it apart."""
        last = [said(each).rpartition("/")[2] for each in self.axes.get(path, ())]
        text = said(value)
        return text.rpartition("/")[2] if all(last) and len({*last}) == len(last) else text

    @cached_property
    def names(self) -> dict[str, str]:
        """The axes, each in a word."""
        return words.short_names(tuple(self.axes)) | ({MODEL: "model"} if MODEL in self.axes else {})

    def seconds(self, study: str, trial: TrialState) -> float:
        """That a trial was under way: by the run's record, or else from its first start to its end."""
        recorded = self.curves.seconds.get((study, trial.number))
        return recorded if recorded is not None else seconds(trial) or 0.0

    def _result(self, study: StudyState) -> Result:
        best = next((trial for trial in study.trials if trial.number == study.best), None)
        return Result(
            study=study,
            best=best if finite(best) else None,
            standing=standing_of(study, study.best, direction=study.direction),
            seconds=sum(self.seconds(study.name, trial) for trial in study.trials),
            best_seconds=self.seconds(study.name, best) if best else 0.0,
        )


def collect(state: RunState, plan: Plan | None, curves: Curves) -> Facts:
    """The facts of a run, under way or ended. NotFoundError where no trial has a result."""
    if not any(finite(trial) for study in state.studies for trial in study.trials):
        raise NotFoundError(
            f"run {state.run_id} ({state.status}) has no trial with a result: there is nothing to report; "
            f"platform compare {state.run_id} shows how its trials stand"
        )
    studies = plan.studies if plan else ()
    return Facts(
        state,
        curves,
        {study.name: study.search for study in studies},
        {study.name: study.default_draw() for study in studies},
    )


def finite(trial: TrialState | None) -> bool:
    """Whether the trial has a result that can be compared."""
    return trial is not None and trial.objective is not None and math.isfinite(trial.objective)


def is_number(value: Value) -> TypeGuard[int | float]:
    """Whether it has a place on an axis of numbers: a flag has not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def sorted_values(values: Sequence[Value]) -> list[Value]:
    """Numbers by size; anything else as it comes."""
    if all(is_number(value) for value in values):
        return sorted(values, key=lambda value: value if is_number(value) else 0.0)
    return list(values)


def said(value: Value) -> str:
    """A value of the matrix, exactly."""
    return f"{value:g}" if isinstance(value, float) else words.setting(value)
