"""What the driver makes of a study's two parts, its data's preparation and its search, however they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from storage.errors import DataError, NotOnHubError
from storage.files import write_whole
from tests.unit.client.fakes import make_plan
from tests.unit.cluster.at_the_desk import DATA, order
from tests.unit.report.states import study, trial
from tunery.cluster.driver import EXIT_FAILED, Driver, open_driver
from tunery.cluster.ledger import Ledger
from tunery.cluster.messages import Events, Joined
from tunery.cluster.recorder import Recorder
from tunery.cluster.start import base_key
from tunery.cluster.tracking.spool import RECORDS, read_records
from tunery.home import Home
from tunery.profile import load_profile
from tunery.runs import RunFolder

PREPARING: Any = "the preparation's reference"
SEARCHING: Any = "the search's reference"
FINISHED = study("cola", (trial(0, "finished", 0.5),), best=0, status="finished")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """With one study, of which neither part has ended."""
    home, plan = Home(tmp_path / "home"), make_plan()
    folder = RunFolder(home.runs / plan.run_id)
    write_whole(folder.plan_file, plan.model_dump_json().encode())
    opened = open_driver(folder, home, load_profile(None, home))
    opened._studying = {SEARCHING: opened.plan.studies[0]}
    yield opened
    if opened.ledger.state.ended_at is None:
        opened.recorder.close()


def test_a_study_whose_data_is_there_runs(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get", lambda _: DATA)
    driver._study_prepared(driver.plan.studies[0], PREPARING)
    assert (driver.ledger.study("cola").status, list(driver._studying)) == ("running", [SEARCHING])


def test_a_study_whose_data_cannot_be_used_fails_with_the_reason_and_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise DataError("train.jsonl:7: no label")

    monkeypatch.setattr("ray.get", refuse)
    driver._study_prepared(driver.plan.studies[0], PREPARING)
    assert (driver.ledger.study("cola").status, driver.ledger.study("cola").error) == (
        "failed", "train.jsonl:7: no label",
    )  # fmt: skip
    assert not driver._studying, "its process ends with the same error, which is not told again"


def test_a_study_that_failed_before_its_data_was_there_stays_failed(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver._fail_study(driver._studying.pop(SEARCHING), ValueError("the database does not answer"))
    monkeypatch.setattr("ray.get", lambda _: DATA)
    driver._study_prepared(driver.plan.studies[0], PREPARING)
    left = driver.ledger.study("cola")
    where = f"`platform logs {driver.plan.run_id}` shows where"
    assert (left.status, left.error) == ("failed", f"ValueError: the database does not answer; {where}")


def test_a_study_is_begun_before_its_first_trial_is_told_of(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process has the data as soon as it is there, and may be quicker than the driver's next look."""
    told: list[str] = []
    driver._preparing = {PREPARING: driver.plan.studies[0]}
    monkeypatch.setattr("ray.wait", lambda refs, **_: (refs, []))
    monkeypatch.setattr("ray.get", lambda _: DATA)
    monkeypatch.setattr(driver.recorder, "study_started", lambda *_: told.append("study"))
    monkeypatch.setattr(driver.recorder, "record", lambda _: told.append("trial"))
    driver.desk = MagicMock(events=lambda *_, **__: Events(1, (("", Joined(order(0), 1_000)),)))
    driver._follow(wait_s=0.0)
    assert told == ["study", "trial"]
    assert not driver._preparing


def test_a_study_whose_base_has_lost_its_packs_still_asks_for_one(driver: Driver) -> None:
    """And is told why there is none: with no trial at once it would wait for ever."""
    study = driver.plan.studies[0]
    driver.desk = MagicMock()
    driver.packs = MagicMock(places={base_key(study): 3}.__getitem__)
    assert driver._study_order(study, MagicMock()).seats == 3


def test_the_end_of_a_run_writes_its_report_for_its_folder_and_mlflow(driver: Driver) -> None:
    driver.recorder.study_started(driver.plan, driver.plan.studies[0], DATA)
    driver.ledger = Ledger(driver.ledger.state.model_copy(update={"studies": (FINISHED,)}))
    driver._end("finished", "")
    assert (driver.folder.state().status, driver.folder.state().error) == ("finished", "")
    names = {file.name for file in driver.folder.report.iterdir()}
    assert {"report.html", "report.md", "results_summary.csv", "all_results.json"} < names
    (sent,) = (r for r, _ in read_records(driver.folder.spool / RECORDS, 0) if r and r["kind"] == "artifacts")
    assert (sent["study"], sent["number"], sent["path"]) == ("cola", None, "report")
    assert sent["folder"] == str(driver.folder.report.resolve())
    assert '"status": "finished"' in (driver.folder.report / "all_results.json").read_text()


def test_a_run_without_a_result_has_no_report_and_nothing_is_wrong(driver: Driver) -> None:
    driver._end("failed", "failed: cola")
    assert driver.folder.state().error == "failed: cola"
    assert not driver.folder.report.exists()


def test_a_report_that_cannot_be_written_is_told_and_fails_nothing(driver: Driver) -> None:
    driver.ledger = Ledger(driver.ledger.state.model_copy(update={"studies": (FINISHED,)}))
    driver.folder.report.write_text("a file where the folder should be")
    driver._end("finished", "")
    state = driver.folder.state()
    assert state.status == "finished"
    assert state.error.startswith("the report was not written: FileExistsError")


def test_a_run_whose_models_cannot_be_fetched_fails_with_the_reason(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver._studying = {}

    def nothing_fetched() -> bool:
        driver._fail_study(driver.plan.studies[0], NotOnHubError("no such model"))
        return True

    monkeypatch.setattr("tunery.cluster.driver.started_ray", lambda *_, **__: nullcontext())
    monkeypatch.setattr("tunery.cluster.driver.RemoteDesk", MagicMock)
    monkeypatch.setattr(driver, "_fetch_models", nothing_fetched)
    assert driver.run() == EXIT_FAILED
    state = driver.folder.state()
    assert (state.status, state.error) == ("failed", "failed: cola")
    assert state.studies[0].error == "no such model"


def test_a_stop_is_not_kept_waiting_by_a_slow_mlflow(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    close = MagicMock(return_value="")
    monkeypatch.setattr(driver.recorder, "close", close)
    driver._end("stopped", "")
    driver._end("failed", "")
    assert [call.kwargs["give_up"] for call in close.call_args_list] == [None, driver._asked_to_stop]


def test_what_mlflow_did_not_take_is_brought_there_when_the_run_goes_on(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.ledger = Ledger(driver.ledger.state.model_copy(update={"studies": (FINISHED,)}))
    with monkeypatch.context() as away:
        close = driver.recorder.close
        away.setattr(Recorder, "close", lambda *_, **__: [close(), "http://mlflow: connection refused"][1])
        driver._end("finished", "")
    state = driver.folder.state()
    assert (state.status, state.unsent) == ("finished", True)
    assert state.error.startswith("not all of it is in MLflow: http://mlflow: connection refused; `platform resume")

    monkeypatch.setattr("tunery.cluster.driver.started_ray", None)  # no study needs one
    again = open_driver(driver.folder, driver.home, driver.profile)
    assert again.run() == 0
    state = driver.folder.state()
    assert (state.status, state.unsent, state.error) == ("finished", False, "")
    assert state.studies == (FINISHED,)
