"""How a run ended: for people, and for programs that read `-o json`."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from tunery import tasks
from tunery.errors import NotFoundError, RunError
from tunery.report import words
from tunery.runs import RunState, RunStatus, StudyState, TrialState
from tunery.standings import standing_of

INTERRUPTED = 130


def exit_code(status: RunStatus) -> int:
    """0 finished (or still under way), 130 stopped, 5 failed, or interrupted by its driver's death."""
    match status:
        case "failed" | "interrupted":
            return RunError.exit_code
        case "stopped":
            return INTERRUPTED
        case _:
            return 0


def document(state: RunState) -> dict[str, Any]:
    """The stable shape of a run, as `submit`, `status`, `stop` and `resume` print it."""
    return {
        "run_id": state.run_id,
        "name": state.name,
        "status": state.status,
        "error": state.error,
        "tracking_uri": state.tracking_uri,
        "studies": [_study_document(study) for study in state.studies],
    }


def _study_document(study: StudyState) -> dict[str, Any]:
    best = best_trial(study)
    found = None
    if best is not None:
        found = {
            "trial": best.number,
            "objective": best.objective,
            "metrics": dict(best.metrics),
            "config": dict(best.config),
            "over_seeds": _over_seeds(study),
        }
    return {
        "task": study.task,
        "cell": dict(study.cell),
        "status": study.status,
        "trials": len(study.trials),
        "best": found,
        "model": study.model,
        "model_version": study.model_version,
        "champion": study.champion,
        "verdict": study.verdict,
        "notes": list(study.notes),
        "error": study.error,
    }


def _over_seeds(study: StudyState) -> dict[str, Any] | None:
    """What the best configuration gave with other seeds; None where it was not trained again."""
    found = standing_of(study, study.best, direction=study.direction)
    return {"mean": found.mean, "deviation": found.deviation, "seeds": len(found.runs)} if found else None


def best_trial(study: StudyState) -> TrialState | None:
    """The study's best trial, or None before there is one."""
    return next((trial for trial in study.trials if trial.number == study.best), None)


def summary(state: RunState, *, head: bool = True) -> RenderableType:
    """What came of the run: the best trial of each study, its model, and whether it is the champion and why.

    Without `head`: for below the live table, which has said how the run ended.
    """
    mark, style = words.MARKS[state.status]
    took = f" in {words.duration(state.seconds(state.ended_at))}" if state.ended_at and state.started_at else ""
    line = Text.assemble((f"{mark} ", style), (state.run_id, "bold"), "  ", (f"{state.status}{took}", style))
    parts: list[RenderableType] = [line] if head else []
    if state.error and head:
        parts.append(Padding(Text(state.error, "red"), (0, 0, 0, 2), expand=False))
    for study in state.studies:
        parts += [Text(), *_study_lines(study)]
    return Group(*parts)


def _study_lines(study: StudyState) -> list[RenderableType]:
    best = best_trial(study)
    mark, style = words.MARKS[study.status]
    line = Text.assemble((f"{mark} ", style), (study.name, "bold"), "  ")
    if best is None:
        line.append(study.status, style)
        return [line, *_indented(study.error, "red")]
    line.append(f"{study.objective} {words.number(best.objective)}", "bold green")
    line.append(f" by trial {best.number}")
    line.append(f"  ({words.count(len(study.trials), 'trial')}{_ends(study)})", "dim")
    details = [words.draw(best.config), _other_metrics(study, best), _seeds(study)]
    return [
        line,
        *_indented("  ·  ".join(part for part in details if part), "dim"),
        *_indented(_model(study), ""),
        *_indented("\n".join(study.notes), "dim"),
        *_indented(study.error, "red"),
    ]


def _seeds(study: StudyState) -> str:
    """`mean 0.7410 over 3 other seeds, deviation 0.0121`."""
    found = standing_of(study, study.best, direction=study.direction)
    if found is None or found.mean is None:
        return ""
    spread = f", deviation {words.number(found.deviation)}" if found.deviation is not None else ""
    return f"mean {words.number(found.mean)} over {words.count(len(found.runs), 'other seed')}{spread}"


def _ends(study: StudyState) -> str:
    """`, 3 pruned, 1 failed`: what did not run to its end."""
    amounts = {name: sum(trial.status == name for trial in study.trials) for name in ("pruned", "failed", "stopped")}
    return "".join(f", {amount} {name}" for name, amount in amounts.items() if amount)


def _other_metrics(study: StudyState, best: TrialState) -> str:
    """The task's own; what else was measured (rates, memory, parameters) is in `compare` and in MLflow."""
    names = [name for name in study.metrics if name in best.metrics and name != study.objective]
    return ", ".join(f"{name} {words.number(best.metrics[name])}" for name in names)


def _model(study: StudyState) -> str:
    if study.model is None or study.model_version is None:
        return ""
    said = {True: "is the champion", False: "is not the champion", None: "is registered"}[study.champion]
    return f"{study.model} version {study.model_version} {said}{f': {study.verdict}' if study.verdict else ''}"


def _indented(text: str, style: str) -> list[RenderableType]:
    return [Padding(Text(text, style), (0, 0, 0, 2), expand=False)] if text else []


def next_steps(state: RunState, *, alias: str = "champion", profile: str | None = None) -> list[str]:
    """The commands that are worth a look now. `alias`: the one that the run's champions hold; `profile`: the one that
    was named."""
    place = f" --profile {shlex.quote(profile)}" if profile else ""
    run = f"{state.run_id}{place}"
    match state.status:
        case "starting" | "running":
            return [f"platform status {run}", f"platform logs {run} --follow", f"platform stop {run}"]
        case "finished":
            return [
                f"platform compare {run}",
                *_predict(state, alias, place),
                f"platform ui{place}",
                f"platform report {run}",
            ]
        case "failed":
            return [f"platform logs {run}", f"platform compare {run}", f"platform resume {run}"]
        case _:
            return [f"platform resume {run}", f"platform compare {run}", f"platform logs {run}"]


def _predict(state: RunState, alias: str, place: str) -> list[str]:
    """One command that asks a new model: a champion rather than another. `place`: the option that names the profile."""
    made = [study for study in state.studies if study.model and study.model_version]
    if not made:
        return []
    study = next((study for study in made if study.champion), made[0])
    name = f"{study.model}@{alias}" if study.champion else f"{study.model}/{study.model_version}"
    text, second = "...", None
    with suppress(NotFoundError):  # a task that this version does not know
        for example in tasks.get(study.task).examples[:1]:
            text, second = example.text, example.text_pair
    pair = f" --text2 {shlex.quote(second)}" if second is not None else ""
    return [f"platform predict {name} --text {shlex.quote(text)}{pair}{place}"]
