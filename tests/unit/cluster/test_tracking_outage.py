"""An MLflow server that goes away in the middle of a run, and comes back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import MlflowServer as Server
from tunery.cluster.tracking import Shipper, Tracker

PATIENCE_S = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def test_an_outage_delays_and_neither_loses_nor_doubles(server: Server, tmp_path: Path) -> None:
    spool = tmp_path / "glue-0a1b2c3d" / "spool"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "tunery.json").write_text("{}")
    tracker, shipper = Tracker(spool), Shipper(spool, server.uri)
    shipper.start()
    tracker.study_started(
        "cola", experiment="glue", run_name="g/cola", tags={}, params={}, files={"spec.yaml": b"name: glue"}, at_ms=1
    )
    tracker.trial_started("cola", 0, params={"tuner.rank": 8}, tags={}, at_ms=2)
    for step in range(50):
        tracker.metrics("cola", 0, {"loss": 1.0 / (step + 1)}, step=step, at_ms=1000 + step)
    assert shipper.drain(PATIENCE_S), shipper.problem

    server.stop()
    for step in range(50, 150):
        # Each would take minutes, and this test its limit, if it waited for the server.
        tracker.metrics("cola", 0, {"loss": 1.0 / (step + 1)}, step=step, at_ms=1000 + step)
    tracker.artifacts("cola", 0, adapter, "adapter", 3)
    tracker.trial_ended("cola", 0, status="FINISHED", at_ms=2000)
    tracker.trial_started("cola", 1, params={}, tags={}, at_ms=5)
    tracker.trial_ended("cola", 1, status="FAILED", at_ms=2001)
    tracker.study_ended("cola", status="FINISHED", at_ms=2002)
    assert not shipper.drain(2.0)
    assert server.uri in shipper.problem

    server.start()
    assert shipper.drain(PATIENCE_S), shipper.problem
    assert shipper.problem == ""
    shipper.close()
    shutil.copytree(spool, tmp_path / "again" / "spool")
    (tmp_path / "again" / "spool" / "shipped.json").unlink()
    replay = Shipper(tmp_path / "again" / "spool", server.uri)
    replay.start()
    assert replay.drain(PATIENCE_S), replay.problem
    replay.close()

    with sqlite3.connect(server.database) as database:
        runs = database.execute("select name, status, lifecycle_stage from runs order by start_time").fetchall()
        steps = database.execute("select step from metrics order by step").fetchall()
    assert runs == [("g/cola", "FINISHED", "active"), ("glue-0a1b2c3d/cola/0", "FINISHED", "active"),
                    ("glue-0a1b2c3d/cola/1", "FAILED", "active")]  # fmt: skip
    assert steps == [(step,) for step in range(150)]
    assert sorted(path.name for path in server.artifacts.rglob("*") if path.is_file()) == ["spec.yaml", "tunery.json"]
    assert shipper.refused == replay.refused == 0
