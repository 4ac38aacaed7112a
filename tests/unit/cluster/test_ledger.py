"""What the driver knows of a run, out of the desk's events."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from tests.unit.cluster.at_the_desk import order, report
from tunery.cluster.ledger import Ledger
from tunery.cluster.messages import Event, Failed, Joined, Left, Reported, Seated, SeatName
from tunery.plan import compile_plan
from tunery.spec import parse_spec


def ledger() -> Ledger:
    spec = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": "events",
        "model": {"id": "org/model"},
        "tasks": ["cola"],
        "tuner": {"method": "lora"},
        "search": {"trials": 5, "space": {"tuner.rank": {"choice": [4, 8]}}},
    }
    return Ledger.begin(compile_plan(parse_spec(yaml.safe_dump(spec), file="test.yaml")), tracking_uri="", now=0.0)


def scored(number: int, objective: float, index: int = 0) -> Event:
    return Reported(SeatName("cola", number), replace(report(index), objective=objective))


def after(*events: Event) -> Ledger:
    folded = ledger()
    for number in (2, 0, 1):
        folded.apply("", Joined(order(number), 1000 * number))
    for event in events:
        folded.apply("p", event)
    return folded


def test_a_trial_goes_from_waiting_to_its_end() -> None:
    name = SeatName("cola", 1)
    folded = after()
    told = []
    for event in (Seated(name, 0, 3000), scored(1, 0.25), Left(name, "finished", "", 9000)):
        told.append((folded.study("cola").trials[1].status, folded.study("cola").trials[1].pack))
        folded.apply("p", event)
    assert told == [("waiting", ""), ("running", "p"), ("running", "p")]
    trial = folded.state.studies[0].trials[1]
    assert (trial.status, trial.pack, trial.objective, trial.started_at, trial.ended_at) == (
        "finished", "", 0.25, 3.0, 9.0), "its time begins with its place"  # fmt: skip
    assert [trial.number for trial in folded.state.studies[0].trials] == [0, 1, 2], "by number, whoever joined first"


@pytest.mark.parametrize(
    ("events", "best"),
    [
        ((), None),
        ((scored(1, 0.5),), 1),
        ((scored(1, 0.5), scored(0, 0.7), scored(2, 0.6)), 0),
        ((scored(2, 0.5), scored(1, 0.5)), 1),
        ((scored(1, 0.5), scored(2, 0.5)), 1),
        ((scored(0, 0.5), scored(1, 0.6), scored(0, 0.8, 1)), 0),
        ((scored(0, 0.5), scored(1, 0.6), Left(SeatName("cola", 1), "pruned", "", 0)), 1),
        ((scored(0, 0.5), scored(1, 0.6), scored(2, 0.4), Left(SeatName("cola", 1), "failed", "nan", 0)), 0),
        ((scored(1, 0.6), Left(SeatName("cola", 1), "failed", "nan", 0)), None),
        ((scored(1, 0.6), Left(SeatName("cola", 1), "failed", "nan", 0), scored(0, 0.1)), 0),
    ],
)
def test_the_best_trial_is_the_one_with_the_highest_objective_that_did_not_fail(
    events: tuple[Event, ...], best: int | None
) -> None:
    assert after(*events).study("cola").best == best


def test_why_a_trial_failed_is_kept() -> None:
    name = SeatName("cola", 0)
    folded = after(Failed(name, "loss is nan", 0), Left(name, "failed", "", 0))
    assert folded.study("cola").trials[0].error == "loss is nan"


def test_what_a_trial_waits_for_a_place_again_is_not_its_time() -> None:
    name = SeatName("cola", 0)
    folded = Ledger(after(Seated(name, 0, 10_000)).state)
    folded.apply("", Joined(order(0), 50_000))
    assert folded.study("cola").trials[0].status == "waiting"
    folded.apply("p", Seated(name, 5, 80_000))
    folded.apply("", Left(name, "finished", "", 90_000))
    trial = folded.study("cola").trials[0]
    assert (trial.started_at, trial.seconds(90.0)) == (10.0, 50.0)


def test_a_state_goes_on_where_it_was_read_back() -> None:
    folded = Ledger(after(scored(0, 0.5)).state)
    folded.apply("", scored(2, 0.9))
    folded.update(status="running")
    assert folded.state.status == "running"
    assert folded.study("cola").best == 2
    assert [(name, trial.number) for name, trial in folded.running()] == [("cola", 0), ("cola", 1), ("cola", 2)]
