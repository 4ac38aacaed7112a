"""The way to MLflow, for a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tracking import Size, measured, told
from tunery.cluster.tracking import Tracker


def test_what_was_reported_is_there(tmp_path: Path) -> None:
    size = Size(rate=100.0, seconds=1.0, trials=3)
    found = measured(size, tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    assert found["arrived_per_s"] > 0
    assert "metrics a second" in told(size, found)


def test_a_metric_that_is_missing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracker, "metrics", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="trial 0, mcc: 0 of"):
        measured(Size(100.0, 0.2, 2), tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
