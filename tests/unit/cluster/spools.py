"""A spool with what two trials tell, and what has come of it to a database of MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tunery.cluster.tracking import Tracker

PATIENCE_S = 60.0


def start_study(tracker: Tracker, study: str = "cola", **changes: Any) -> None:
    given: dict[str, Any] = {"experiment": "glue", "run_name": f"glue-0a1b2c3d/{study}", "tags": {"task": study},
                             "params": {"model": "tiny"}, "files": {}, "at_ms": 1_000} | changes  # fmt: skip
    tracker.study_started(study, **given)


def record_two_trials(tracker: Tracker, *, steps: int = 3) -> None:
    """One that finishes and one that fails."""
    start_study(tracker, files={"spec.yaml": b"name: glue\n", "plan/plan.json": b"{}"})
    for number in (0, 1):
        tracker.trial_started("cola", number, params={"tuner.rank": 8, "x": None}, tags={}, at_ms=2_000 + number)
    for step in range(1, steps + 1):
        for number in (0, 1):
            tracker.metrics("cola", number, {"loss": 1 / step, "mcc": 0.1 * step}, step=step, at_ms=3_000 + step)
    tracker.trial_ended("cola", 0, status="FINISHED", at_ms=9_000)
    tracker.trial_ended("cola", 1, status="FAILED", at_ms=9_001, tags={"error": "diverged"})
    tracker.study_ended("cola", status="FINISHED", at_ms=9_500)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(sql).fetchall()


def metric_rows(database: Path) -> list[tuple[Any, ...]]:
    trial = "select value from tags t where t.run_uuid = m.run_uuid and t.key = 'tunery.trial'"
    return query(database, f"select ({trial}), key, step, timestamp, value from metrics m order by 1, 2, 3, 4")


def ledger(database: Path) -> dict[str, Any]:
    """All that is in MLflow, without the ids it draws."""
    trial = "select value from tags t where t.run_uuid = r.run_uuid and t.key = 'tunery.trial'"
    runs = f"select ({trial}), name, status, start_time, end_time, lifecycle_stage from runs r order by 1"
    params = "select r.name, p.key, p.value from params p join runs r on r.run_uuid = p.run_uuid order by 1, 2"
    return {"runs": query(database, runs), "params": query(database, params), "metrics": metric_rows(database)}
