"""The spool and its way into MLflow on sqlite: real databases, real kills."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunery.cluster.tracking import Shipper, Tracker

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out once: that takes seconds."""
    from storage.mlflow_connection import connect

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "glue-0a1b2c3d" / "spool"


@pytest.fixture
def shipper(spool: Path, database: Path, tmp_path: Path) -> Iterator[Shipper]:
    shipper = Shipper(spool, f"sqlite:///{database}", artifacts=tmp_path / "artifacts")
    yield shipper
    shipper.close()


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


def test_runs_params_metrics_files_and_statuses_arrive(
    spool: Path, database: Path, shipper: Shipper, tmp_path: Path
) -> None:
    record_two_trials(Tracker(spool))
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem

    runs = {row[0]: row[1:] for row in ledger(database)["runs"]}
    assert runs[None] == ("glue-0a1b2c3d/cola", "FINISHED", 1_000, 9_500, "active")
    assert runs["0"] == ("glue-0a1b2c3d/cola/0", "FINISHED", 2_000, 9_000, "active")
    assert runs["1"] == ("glue-0a1b2c3d/cola/1", "FAILED", 2_001, 9_001, "active")
    assert [row[2:4] for row in metric_rows(database) if row[:2] == ("0", "mcc")] == [(1, 3001), (2, 3002), (3, 3003)]
    parent, trial = shipper.run_id("cola", None), shipper.run_id("cola", 1)
    tags = dict(query(database, f"select key, value from tags where run_uuid = '{trial}'"))
    assert tags["mlflow.parentRunId"] == parent
    assert (tags["tunery.run"], tags["tunery.study"], tags["tunery.trial"]) == ("glue-0a1b2c3d", "cola", "1")
    assert tags["error"] == "diverged"
    assert ("glue-0a1b2c3d/cola/0", "tuner.rank", "8") in ledger(database)["params"]
    files = {path.relative_to(tmp_path / "artifacts" / "glue" / str(parent) / "artifacts").as_posix(): path.read_text()
             for path in (tmp_path / "artifacts").rglob("*") if path.is_file()}  # fmt: skip
    assert files == {"spec.yaml": "name: glue\n", "plan/plan.json": "{}"}


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


def test_who_has_something_better_to_do_waits_no_longer(spool: Path, shipper: Shipper) -> None:
    record_two_trials(Tracker(spool))
    assert not shipper.drain(PATIENCE_S, give_up=lambda: True)


def test_shipping_everything_again_changes_nothing(spool: Path, database: Path, shipper: Shipper) -> None:
    tracker = Tracker(spool)
    record_two_trials(tracker)
    tracker.trial_started("cola", 2, params={}, tags={}, at_ms=9_600)
    tracker.metrics("cola", 2, {"loss": float("nan"), "mcc": float("inf")}, step=1, at_ms=9_700)
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem
    shipper.close()
    before = ledger(database)

    (spool / "shipped.json").write_text("not json: the machine lost its power")
    again = Shipper(spool, f"sqlite:///{database}")
    again.start()
    assert again.drain(PATIENCE_S), again.problem
    again.close()

    assert ledger(database) == before
    assert again.run_id("cola", 1) == shipper.run_id("cola", 1)
    assert len(before["metrics"]) == 14
    assert again.refused == 0


def test_a_tracker_made_again_goes_on_and_drops_repeated_steps(spool: Path, database: Path, shipper: Shipper) -> None:
    first = Tracker(spool)
    start_study(first)
    first.trial_started("cola", 0, params={"a": 1}, tags={}, at_ms=2_000)
    for step in (10, 20, 30):
        first.metrics("cola", 0, {"loss": 1 / step}, step=step, at_ms=3_000 + step)

    second = Tracker(spool)  # the driver was killed; the trial goes on from its checkpoint at step 10
    start_study(second, at_ms=5_000)
    second.trial_started("cola", 0, params={"a": 1}, tags={}, at_ms=5_000)
    for step in (20, 30, 40):
        second.metrics("cola", 0, {"loss": 1 / step}, step=step, at_ms=6_000 + step)
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem

    assert [row[2:4] for row in metric_rows(database)] == [(10, 3010), (20, 3020), (30, 3030), (40, 6040)]
    assert [row[2] for row in ledger(database)["runs"]] == ["RUNNING", "RUNNING"]


def test_a_run_that_goes_on_is_running_again(spool: Path, database: Path, shipper: Shipper) -> None:
    tracker = Tracker(spool)
    record_two_trials(tracker)
    shipper.start()
    assert shipper.drain(PATIENCE_S)
    tracker.trial_started("cola", 1, params={"tuner.rank": 8}, tags={}, at_ms=10_000)
    assert shipper.drain(PATIENCE_S)
    assert query(database, f"select status from runs where run_uuid = '{shipper.run_id('cola', 1)}'") == [("RUNNING",)]
    assert query(database, "select count(*) from runs") == [(3,)]


def test_a_torn_last_line_is_cut_and_the_rest_kept(spool: Path, database: Path, shipper: Shipper) -> None:
    tracker = Tracker(spool)
    start_study(tracker)
    tracker.close()
    whole = (spool / "records.jsonl").read_bytes()
    (spool / "records.jsonl").write_bytes(whole + b'{"kind":"trial_started","run":"glue')

    shipper.start()
    again = Tracker(spool)
    again.trial_started("cola", 0, params={}, tags={}, at_ms=2_000)
    assert shipper.drain(PATIENCE_S), shipper.problem
    assert len(ledger(database)["runs"]) == 2
    assert shipper.refused == 0


def test_a_line_that_is_no_record_is_kept_apart_and_stops_nothing(
    spool: Path, database: Path, shipper: Shipper
) -> None:
    tracker = Tracker(spool)
    start_study(tracker)
    with (spool / "records.jsonl").open("ab") as file:
        file.write(b"\0\0\0\0\n")
    tracker.trial_started("cola", 0, params={}, tags={}, at_ms=2_000)
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem
    assert len(ledger(database)["runs"]) == 2
    assert shipper.refused == 1


def test_what_mlflow_refuses_costs_only_itself(spool: Path, database: Path, shipper: Shipper, tmp_path: Path) -> None:
    tracker = Tracker(spool)
    start_study(tracker)
    tracker.trial_started("cola", 0, params={"a": 1}, tags={}, at_ms=2_000)
    tracker.metrics("cola", 0, {"m" * 300: 1.0}, step=1, at_ms=3_001)  # a name that is too long
    tracker.metrics("cola", 0, {"mcc": 0.5}, step=2, at_ms=3_002)
    tracker.metrics("cola", 7, {"mcc": 0.5}, step=2, at_ms=3_002)  # never started
    tracker.artifacts("cola", 0, tmp_path / "not there", "adapter", 3_003)
    tracker.trial_ended("cola", 0, status="KILLED", at_ms=9_000)
    shipper.start()
    assert shipper.drain(PATIENCE_S), shipper.problem

    assert [row[1:3] for row in metric_rows(database)] == [("mcc", 2)]
    assert [row[2] for row in ledger(database)["runs"]] == ["RUNNING", "KILLED"]
    refused = [json.loads(line) for line in (spool / "refused.jsonl").read_text().splitlines()]
    assert [entry["record"]["kind"] for entry in refused].count("metrics") == 2
    assert any("not there is gone" in entry["why"] for entry in refused)
    assert shipper.refused == 3


def test_a_run_whose_creation_was_answered_too_late_is_found_and_twins_go(
    spool: Path, database: Path, shipper: Shipper
) -> None:
    from storage.mlflow_connection import connect

    tracker = Tracker(spool)
    start_study(tracker)
    shipper.start()
    assert shipper.drain(PATIENCE_S)
    client = connect(f"sqlite:///{database}")
    tags = {"tunery.spool": (spool / "id").read_text(), "tunery.study": "cola", "tunery.trial": "0"}
    first, second = (client.create_run("1", start_time=at, tags=tags).info.run_id for at in (2_000, 2_001))

    tracker.trial_started("cola", 0, params={}, tags={}, at_ms=2_000)
    tracker.trial_ended("cola", 0, status="FINISHED", at_ms=2_500)
    tracker.study_ended("cola", status="FINISHED", at_ms=3_000)
    assert shipper.drain(PATIENCE_S)
    assert shipper.run_id("cola", 0) == first
    assert query(database, f"select lifecycle_stage from runs where run_uuid = '{second}'") == [("deleted",)]
    assert query(database, "select count(*) from runs where lifecycle_stage = 'active'") == [(2,)]


def test_two_runs_of_one_experiment_keep_apart(tmp_path: Path, database: Path) -> None:
    for name in ("a-1", "b-2"):
        folder = tmp_path / name / "spool"
        record_two_trials(Tracker(folder))
        shipper = Shipper(folder, f"sqlite:///{database}", artifacts=tmp_path / "artifacts")
        shipper.start()
        assert shipper.drain(PATIENCE_S), shipper.problem
        shipper.close()
    assert query(database, "select count(*) from runs") == [(6,)]
    assert query(database, "select count(*) from experiments where name = 'glue'") == [(1,)]
    assert len(metric_rows(database)) == 24


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
