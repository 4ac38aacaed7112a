"""States of runs to draw."""

from __future__ import annotations

from typing import Any

from tunery.runs import RunState, StudyState, TrialState

NOW = 1_000_000.0


def trial(number: int, status: str, objective: float | None = None, **more: Any) -> TrialState:
    begun = status != "waiting"
    step = {"waiting": 0, "running": 50, "pruned": 30, "failed": 10, "finished": 100, "stopped": 40}[status]
    values: dict[str, Any] = {
        "number": number,
        "status": status,
        "config": {"tuner.rank": 4 + number, "train.learning_rate": 2.94e-4} if begun else {},
        "pack": "pack-0" if begun else "",
        "epoch": step * 3 / 100,
        "epochs": 3 if begun else 0,
        "step": step,
        "steps": 100 if begun else 0,
        "objective": objective,
        "metrics": {"mcc": objective, "loss": 0.25} if objective is not None else {},
        "examples_per_s": 1234.0 if status == "running" else None,
        "started_at": NOW - 30 if begun else None,
        "ended_at": NOW - 10 if status not in ("waiting", "running") else None,
        "error": "loss is nan at step 12\nand a trace" if status == "failed" else "",
        **more,
    }
    return TrialState.model_validate(values)


def study(name: str = "cola", trials: tuple[TrialState, ...] = (), **more: Any) -> StudyState:
    values: dict[str, Any] = {
        "name": name,
        "task": name,
        "status": "running",
        "objective": "mcc",
        "metrics": ("mcc", "accuracy", "f1", "precision", "recall"),
        "planned": len(trials),
        "trials": trials,
        **more,
    }
    return StudyState.model_validate(values)


def state(*studies: StudyState, status: str = "running", **more: Any) -> RunState:
    values: dict[str, Any] = {
        "run_id": "glue-0123abcd",
        "name": "glue",
        "status": status,
        "studies": studies,
        "started_at": NOW - 60,
        "updated_at": NOW,
        **more,
    }
    return RunState.model_validate(values)


MIXED = (
    trial(0, "finished", 0.5),
    trial(1, "pruned", 0.3),
    trial(2, "failed"),
    trial(3, "running", 0.7),
    trial(4, "waiting"),
)
