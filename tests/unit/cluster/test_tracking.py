"""The spool and its way into MLflow on sqlite: real databases, real kills."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.cluster.spools import PATIENCE_S, ledger, metric_rows, query, record_two_trials, start_study
from tunery.cluster.tracking import Shipper, Tracker


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
