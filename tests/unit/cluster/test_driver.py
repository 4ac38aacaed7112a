"""What the driver makes of a study's two parts, its data's preparation and its search, however they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.fakes import make_plan
from tests.unit.cluster.at_the_desk import DATA
from tunery.cluster.driver import Driver, open_driver
from tunery.home import Home
from tunery.profile import load_profile
from tunery.runs import RunFolder, write_whole

PREPARING: Any = "the preparation's reference"
SEARCHING: Any = "the search's reference"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """With one study, of which neither part has ended."""
    home, plan = Home(tmp_path / "home"), make_plan()
    folder = RunFolder(home.runs / plan.run_id)
    write_whole(folder.plan_file, plan.model_dump_json().encode())
    opened = open_driver(folder, home, load_profile(None, home))
    opened._studying = {SEARCHING: opened.plan.studies[0]}
    yield opened
    opened.recorder.close()


def test_a_study_whose_data_is_there_runs(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get", lambda _: DATA)
    driver._study_prepared(driver.plan.studies[0], PREPARING)
    assert (driver.ledger.study("cola").status, list(driver._studying)) == ("running", [SEARCHING])


def test_a_study_whose_data_cannot_be_used_fails_with_the_reason_and_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ValueError("train.jsonl:7: no label")

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
    assert driver.ledger.study("cola").status == "failed"
