"""What a run's records say of its trials' time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.cluster.at_the_desk import order, report
from tunery.cluster.messages import Joined, Left, Reported, Seated, SeatName
from tunery.cluster.recorder import Recorder
from tunery.profile import Profile
from tunery.report.documents import curves
from tunery.runs import RunFolder

TRIAL = SeatName("cola", 0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "glue-0a1b2c3d")


@pytest.fixture
def recorder(folder: RunFolder, database: Path, tmp_path: Path) -> Iterator[Recorder]:
    url = f"sqlite:///{database}"
    profile = Profile(name="here", tracking_uri=url, study_storage_url=url, artifacts=str(tmp_path / "artifacts"))
    recorder = Recorder(folder, profile)
    # The study's own run is not of interest here, and without it MLflow has nothing to put these under.
    recorder.shipper.close()
    yield recorder
    recorder._tracker.close()


def test_what_a_trial_waits_for_a_place_is_not_its_time(recorder: Recorder, folder: RunFolder) -> None:
    recorder.record(Joined(order(0), 1_000))
    assert not curves.read(folder).seconds, "it has not begun"
    recorder.record(Seated(TRIAL, 0, 60_000))
    recorder.record(Reported(TRIAL, replace(report(0), at_ms=70_000, metrics={"mcc": 0.5})))
    recorder.record(Seated(TRIAL, 1, 100_000))  # its pack was lost, and what it had done since with it
    recorder.record(Left(TRIAL, "finished", "", 115_000))
    found = curves.read(folder)
    assert [point.cost_s for point in found.of("cola", 0)] == [10.0]
    assert found.seconds == {("cola", 0): 25.0}


def test_a_trial_that_ends_without_a_place_is_told_of(recorder: Recorder, folder: RunFolder) -> None:
    recorder.record(Joined(order(0), 1_000))
    recorder.record(Left(TRIAL, "failed", "no pack can train it", 9_000))
    assert curves.read(folder).seconds == {("cola", 0): 0.0}
