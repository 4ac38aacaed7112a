"""An MLflow server that goes away in the middle of a run, and comes back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunery.cluster.tracking import Shipper, Tracker

PATIENCE_S = 120.0


class Server:
    """`mlflow server` on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        self.artifacts = folder / "kept by the server"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                   "--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}",
                   "--artifacts-destination", str(self.artifacts)]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._healthy():
            assert time.monotonic() < deadline, self._log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with {self._process.wait(0.2)}: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # it and its worker: a session of their own
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


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
