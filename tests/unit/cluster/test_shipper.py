"""How the spool is carried to MLflow: in passes, in a thread of its own, past slowness, locks and kills."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.cluster.spools import PATIENCE_S, ledger, metric_rows, query, record_two_trials, start_study
from tunery.cluster.tracking import Shipper, Tracker


def test_a_slow_server_is_waited_for_as_long_as_it_takes_some_of_it(
    spool: Path, shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tunery.cluster.tracking.shipper.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("tunery.cluster.tracking.shipper._RECORDS_A_PASS", 3)
    record_two_trials(Tracker(spool))
    ship = shipper._ship_some

    def slowly() -> bool:
        clock[0] += 50.0
        return ship()

    monkeypatch.setattr(shipper, "_ship_some", slowly)
    shipper.start()
    assert shipper.drain(60.0, give_up=lambda: False), shipper.problem
    assert clock[0] >= 4 * 50.0


def test_a_pass_may_take_longer_than_who_waits_would_wait_for_nothing(
    spool: Path, shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tunery.cluster.tracking.shipper.time", SimpleNamespace(monotonic=lambda: clock[0]))
    record_two_trials(Tracker(spool))
    looked = threading.Event()

    def slowly(_: object, taken: Callable[[], None]) -> list[object]:
        for _ in range(4):
            clock[0] += 40.0
            taken()
            looked.clear()
            assert looked.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(shipper, "_sink", SimpleNamespace(apply=slowly))

    def look() -> bool:
        looked.set()
        return False

    shipper.start()
    assert shipper.drain(60.0, give_up=look), "160 s, of which none was without an answer for 60"


def test_a_pass_has_as_many_requests_as_a_server_answers_in_its_time(
    spool: Path, shipper: Shipper, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("tunery.cluster.tracking.shipper.time", SimpleNamespace(monotonic=lambda: clock[0]))
    tracker = Tracker(spool)
    for trial in range(40):
        tracker.trial_started("cola", trial, params={}, tags={}, at_ms=1_000)
    for step in range(900):
        tracker.metrics("cola", 0, {f"of layer {layer}": 1.0 for layer in range(30)}, step=step, at_ms=2_000 + step)
    takes = [102.0, 18.0, 1.0, 9.0]  # seconds
    sizes: list[int] = []

    def apply(records: list[object], _: object) -> list[object]:
        clock[0] += takes[len(sizes)]
        sizes.append(len(records))
        return []

    monkeypatch.setattr(shipper, "_sink", SimpleNamespace(apply=apply))
    while shipper._ship_some():
        pass
    # 34 openings are 102 requests, at a second each: ten are allowed next, which are four openings, and not fewer. Then
    # two openings and four requests of a thousand metrics. A server that has taken those in a second gets all the rest.
    assert sizes == [34, 4, 103, 799]


def test_who_has_something_better_to_do_waits_no_longer(spool: Path, shipper: Shipper) -> None:
    record_two_trials(Tracker(spool))
    assert not shipper.drain(PATIENCE_S, give_up=lambda: True)


def test_a_locked_database_delays_and_loses_nothing(spool: Path, database: Path, shipper: Shipper) -> None:
    tracker = Tracker(spool)
    start_study(tracker)
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("begin exclusive")
    try:
        began = time.monotonic()
        record_two_trials(tracker)
        assert time.monotonic() - began < 2.0  # appends wait for no database
        assert not shipper.drain(1.0)
    finally:
        holder.execute("rollback")
        holder.close()
    assert shipper.drain(PATIENCE_S), shipper.problem
    assert len(metric_rows(database)) == 12


def test_starting_a_shipper_does_not_wait_for_mlflow(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from tunery.cluster.tracking import Shipper, Tracker
tracker = Tracker(Path(sys.argv[1]) / "run" / "spool")
assert "mlflow" not in sys.modules
began = time.monotonic()
shipper = Shipper(Path(sys.argv[1]) / "run" / "spool", f"sqlite:///{sys.argv[1]}/mlflow.db")
shipper.start()
assert time.monotonic() - began < 0.5
tracker.study_started("s", experiment="e", run_name="r/s", tags={}, params={}, files={}, at_ms=1)
assert shipper.drain(60), shipper.problem
assert "mlflow" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=_environment(), timeout=120)


def test_a_password_in_the_uri_is_in_no_problem(tmp_path: Path) -> None:
    shipper = Shipper(tmp_path / "run" / "spool", "postgresql://tunery:s3cret@127.0.0.1:1/mlflow")
    Tracker(tmp_path / "run" / "spool")
    seen = threading.Event()

    class Watched(Shipper):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "problem" and value:
                seen.set()

    shipper.__class__ = Watched
    shipper._connected = _fail_with("could not connect as tunery:s3cret")  # type: ignore[method-assign]
    shipper.start()
    assert seen.wait(PATIENCE_S)
    shipper.close()
    assert "***" in shipper.problem
    assert "s3cret" not in shipper.problem


def _fail_with(message: str) -> Any:
    def fail() -> None:
        raise ConnectionError(message)

    return fail


SHIP = """
import sys
from pathlib import Path
from tunery.cluster.tracking import shipper
shipper._RECORDS_A_PASS = 5
run = shipper.Shipper(Path(sys.argv[1]), sys.argv[2])
run.start()
while not run.drain(60):
    pass
"""


def test_a_shipper_killed_at_any_moment_loses_and_doubles_nothing(
    tmp_path: Path, empty_database: Path, spool: Path
) -> None:
    tracker = Tracker(spool)
    record_two_trials(tracker, steps=40)
    clean, torn = (Path(shutil.copy(empty_database, tmp_path / name)) for name in ("clean.db", "torn.db"))
    reference = Shipper(shutil.copytree(spool, tmp_path / "copy" / "spool"), f"sqlite:///{clean}")
    reference.start()
    assert reference.drain(PATIENCE_S), reference.problem
    reference.close()

    for rows in (1, 31, 62):  # kill it once so many rows have arrived
        process = subprocess.Popen([sys.executable, "-c", SHIP, str(spool), f"sqlite:///{torn}"], env=_environment())
        deadline = time.monotonic() + PATIENCE_S
        while query(torn, "select count(*) from metrics")[0][0] < rows and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with {process.wait(0.02)}")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    last = Shipper(spool, f"sqlite:///{torn}")
    last.start()
    assert last.drain(PATIENCE_S), last.problem
    last.close()

    assert ledger(torn) == ledger(clean)
    assert len(metric_rows(torn)) == 160


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
