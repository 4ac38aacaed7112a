"""The trials of a run, best first, and the runs of a home: tables and documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunery.report import words
from tunery.runs import RunState, StudyState, TrialState, Value
from tunery.standings import Standing, standings

Draws = Mapping[str, Mapping[str, Value]]
"""Study -> its default draw."""
NO_DEFAULTS: Draws = {}


def ranked(study: StudyState) -> list[TrialState]:
    """Its trials, best first in the task's own direction; those without a value last, in their own order."""
    sign = -1.0 if study.direction == "maximise" else 1.0

    def key(trial: TrialState) -> tuple[bool, float, int]:
        value = trial.objective
        missing = value is None or math.isnan(value)
        return (missing, 0.0 if missing or value is None else sign * value, trial.number)

    return sorted(study.trials, key=key)


def is_default(trial: TrialState, default: Mapping[str, Value] | None) -> bool:
    """Whether the trial has exactly the values that the spec itself gives."""
    return bool(default) and dict(trial.config) == dict(default or {})


def document(state: RunState, defaults: Draws = NO_DEFAULTS) -> dict[str, Any]:
    """All trials of a run: `{run_id, name, status, studies: [{study, objective, ..., trials, reruns}]}`, best first."""
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
                "direction": study.direction,
                "best": study.best,
                "trials": [_trial_document(trial, defaults.get(study.name)) for trial in ranked(study)],
                "reruns": [_standing_document(each) for each in standings(study, direction=study.direction)],
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
        "origin": trial.origin or "sampler",
        "rerun_of": trial.rerun_of,
        "epoch": trial.epoch,
        "epochs": trial.epochs,
        "step": trial.step,
        "steps": trial.steps,
        "examples_per_s": trial.examples_per_s,
        "seconds": seconds(trial),
        "error": trial.error,
    }


def _standing_document(standing: Standing) -> dict[str, Any]:
    return {
        "trial": standing.trial,
        "config": dict(standing.config),
        "mean": standing.mean,
        "deviation": standing.deviation,
        "seeds": len(standing.runs),
        "failed": standing.failed,
        "runs": list(standing.runs),
    }


def comparison(studies: Sequence[StudyState], defaults: Draws = NO_DEFAULTS) -> RenderableType:
    """A table a study, its trials best first, and below it why some have failed."""
    parts: list[RenderableType] = []
    for study in studies:
        default = defaults.get(study.name)
        goal = {"maximise": "more is better", "minimise": "less is better"}[study.direction]
        title = Text.assemble((study.name, "bold"), "  ", (f"{study.objective}, {goal}", "dim"))
        parts += [Text(), title, _Trials(study, default)]
        if any(is_default(trial, default) for trial in study.trials):
            parts.append(Text("* the values that the spec itself gives", "dim"))
        champions = [trial for trial in study.trials if trial.origin.startswith("registry ")]
        parts += [Text(f"trial {trial.number}: the values of {trial.origin[9:]}", "dim") for trial in champions]
        if found := standings(study, direction=study.direction):
            parts += [Text(), Text("run again with other seeds, best mean first", "dim"), _over_seeds(study, found)]
        parts += [_failure(trial) for trial in study.trials if trial.error]
    return Group(*parts[1:])


@dataclass(frozen=True)
class _Trials:
    """The table of one study. On a narrow screen the last metrics give way, and a line says so; no number is cut."""

    study: StudyState
    default: Mapping[str, Value] | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        metrics = [name for name in self.study.metrics if name != self.study.objective]
        for shown in range(len(metrics), -1, -1):
            table = self._table(metrics[:shown])
            if shown == 0 or Measurement.get(console, options.update(width=1000), table).maximum <= options.max_width:
                yield table
                if metrics[shown:]:
                    yield Text(f"no room for {', '.join(metrics[shown:])}: a wider window or -o json has them", "dim")
                return

    def _table(self, metrics: Sequence[str]) -> Table:
        study = self.study
        paths = tuple(dict.fromkeys(path for trial in study.trials for path in trial.config))
        short = words.short_names(paths).values()
        # A mean of several metrics is in the title; as a heading it would be wider than any number.
        value = "objective" if "(" in study.objective else study.objective
        columns = ("trial", "status", value, *short, *metrics, "epoch", "ex/s", "time")
        table = words.table(*columns, numbers=tuple(name for name in columns if name != "status"))
        for trial in ranked(study):
            took = seconds(trial)
            table.add_row(
                f"{'*' if is_default(trial, self.default) else ''}{trial.number}",
                words.status(trial.status),
                Text(words.number(trial.objective), "bold green" if trial.number == study.best else ""),
                *(words.setting(trial.config[path]) if path in trial.config else "" for path in paths),
                *(Text(words.number(trial.metrics.get(name)), "dim") for name in metrics),
                words.epoch(trial),
                words.rate(trial.metrics.get("examples_per_s")),
                words.duration(took) if took is not None else "",
            )
        return table


def _over_seeds(study: StudyState, found: Sequence[Standing]) -> Table:
    """A row a configuration that was trained again. The mean is of those runs alone."""
    paths = tuple(found[0].config)
    columns = ("trial", "mean", "deviation", "seeds", *words.short_names(paths).values(), "runs")
    table = words.table(*columns, numbers=columns[:-1])
    for standing in found:
        chosen = study.best in (standing.trial, *standing.runs)
        failed = f", {standing.failed} failed" if standing.failed else ""
        table.add_row(
            str(standing.trial),
            Text(words.number(standing.mean), "bold green" if chosen else ""),
            words.number(standing.deviation),
            str(len(standing.runs)),
            *(words.setting(standing.config[path]) if path in standing.config else "" for path in paths),
            Text(", ".join(map(str, standing.runs)) + failed, "dim"),
        )
    return table


def _failure(trial: TrialState) -> RenderableType:
    return Padding(Text(f"trial {trial.number}: {words.first_line(trial.error)}", "red"), (0, 0, 0, 2), expand=False)


def seconds(trial: TrialState) -> float | None:
    """From its first start to its end, without pauses; None while that is not known."""
    return None if trial.ended_at is None else trial.seconds(trial.ended_at)


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
        table.add_row(
            Text(state.run_id, "bold"),
            words.status(state.status),
            f"{words.ended(state)}/{words.planned(state)}",
            words.duration(state.seconds(now)) if state.started_at and state.status != "interrupted" else "",
            words.ago(now - state.started_at) if state.started_at else "",
            words.cut(", ".join(study.name for study in state.studies), "dim"),
        )
    return table
