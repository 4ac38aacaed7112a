"""What a seat goes on from: its own newest checkpoint, the one that the run begins with, or nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from storage.checkpoints import CheckpointStore
from storage.stores import Place
from tests.unit.cluster.at_the_desk import report
from tests.unit.test_begin import TUNER, origin_of_plan, plan_of
from tuners.engine import SeatState
from tunery.begin import Origin
from tunery.cluster.beginning import Beginning, beginning
from tunery.cluster.reports import Counted, write_reports
from tunery.runs import COUNTED, OF, REPORTS, SEAT_STATE, RunFolder

OURS = origin_of_plan(plan_of())


def state(value: float) -> SeatState:
    tensors = {name: torch.full((3,), value) for name in ("theta", "m", "v")}
    meta = {"version": 1, "step": 12, "evaluated_at": 12, "zero_steps": 1, "constant_steps": 1, "segments": []}
    return SeatState(tensors, meta)


def save(folder: Place, value: float, origin: Origin = OURS, *, counted: bool = True) -> None:
    files = {SEAT_STATE: state(value).to_bytes(), REPORTS: write_reports([report(0)]), OF: origin.to_bytes()}
    if counted:
        files[COUNTED] = Counted(loss_sum=0.5, steps=3).to_bytes()
    CheckpointStore(folder).save(12, files, metrics={}, best=False)


def begun(run: RunFolder, *, origin: Origin = OURS, begin: str = "") -> Beginning:
    return beginning(CheckpointStore(run.checkpoints("cola", 0)), run, origin, begin=begin)


def theta(found: Beginning) -> tuple[float, float, int]:
    assert found.state is not None
    read = SeatState.from_bytes(found.state)
    moment = float(read.moments["m"][0]) if read.moments else 0.0
    return float(read.tensors["theta"][0]), moment, int(read.meta["step"])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_without_any_checkpoint_a_seat_begins_with_nothing(run: RunFolder) -> None:
    assert begun(run) == Beginning()
    save(run.begin, 1.0)
    assert begun(run) == Beginning(), "what a killed submit has left is not this run's"


def test_its_own_checkpoint_goes_before_the_runs(run: RunFolder) -> None:
    save(run.checkpoints("cola", 0), 2.0)
    save(run.begin, 1.0)
    found = begun(run, begin="old/cola/0@12")
    assert theta(found) == (2.0, 2.0, 12)
    assert found.reports == [report(0)]
    assert found.counted == Counted(loss_sum=0.5, steps=3)


def test_one_of_an_earlier_version_has_counted_nothing(run: RunFolder) -> None:
    save(run.checkpoints("cola", 0), 2.0, counted=False)
    assert begun(run).counted == Counted()


def test_the_same_configuration_goes_on_where_the_checkpoint_was(run: RunFolder) -> None:
    save(run.begin, 1.0)
    found = begun(run, origin=OURS.model_copy(update={"trial": "new/cola/0"}), begin="old/cola/0@12")
    assert theta(found) == (1.0, 1.0, 12)
    assert found.reports == [], "those are the other run's"
    assert found.counted.steps == 3
    assert found.told == ("goes on from checkpoint old/cola/0@12, whose configuration it has",)


def test_another_training_begins_with_the_weights_alone(run: RunFolder) -> None:
    save(run.begin, 1.0)
    other = origin_of_plan(plan_of(train={"epochs": 9}))
    found = begun(run, origin=other, begin="old/cola/0@12")
    assert theta(found) == (1.0, 0.0, 0)
    assert found.counted == Counted()
    assert found.told == ("begins with the weights of checkpoint old/cola/0@12, at step 0: its configuration differs",)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        ("rank", "checkpoint x@12 does not fit this trial: tuner.rank is 8 in the checkpoint, here it is 4"),
        ("damage", "the run's copy of checkpoint x@12 is not there; .*has 3 bytes"),
        ("remove", "the run's copy of checkpoint x@12 is not there"),
        ("silent", "checkpoint x@12 does not say what it is of"),
    ],
)
def test_what_cannot_begin_says_why_and_does_not_begin_with_nothing(run: RunFolder, break_it: str, said: str) -> None:
    origin: Any = OURS
    if break_it == "silent":
        CheckpointStore(run.begin).save(12, {SEAT_STATE: b"x"}, metrics={}, best=False)
    elif break_it != "remove":
        save(run.begin, 1.0)
    if break_it == "rank":
        origin = origin_of_plan(plan_of(tuner=TUNER | {"rank": 4}))
    if break_it == "damage":
        os.truncate(Path(CheckpointStore(run.begin).at(12).where) / SEAT_STATE, 3)
    found = begun(run, origin=origin, begin="x@12")
    assert found.state is None

    assert re.search(said, found.problem), found.problem
