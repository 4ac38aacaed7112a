"""A pack's visits to a desk that answers when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tunery.cluster import visits
from tunery.cluster.messages import Failed, Orders, PackMessage, Progressed, SeatName
from tunery.cluster.visits import Visits

NAME = SeatName("cola", 0)
FAILED = Failed(NAME, "diverged", 0)
PROGRESSED = Progressed(NAME, 1, 2, 0.5, 3.0, 60.0)


class Desk:
    def __init__(self) -> None:
        self.heard: list[tuple[list[PackMessage], float]] = []
        self.answer = threading.Event()
        self.answers: list[Orders] = []

    def visit(self, _pack: str, _incarnation: int, messages: Sequence[PackMessage], *, wait_s: float) -> Orders:
        self.heard.append((list(messages), wait_s))
        assert self.answer.wait(10)
        return self.answers.pop(0) if self.answers else Orders()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def paid(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Visits:
    monkeypatch.setattr(visits, "INTERVAL_S", 0.0)
    return Visits(desk, "pack-0", 1)


def collected(paid: Visits) -> Orders:
    """What comes of the visit that is under way."""
    assert paid._visit is not None
    paid._visit.result(10)
    return paid.orders(training=True)


def test_a_step_waits_for_no_visit_and_hears_it_later(paid: Visits, desk: Desk) -> None:
    desk.answers = [Orders(drop=(NAME,))]
    paid.say(PROGRESSED)
    assert paid.orders(training=True) == Orders()
    assert paid.orders(training=True) == Orders()
    desk.answer.set()
    assert collected(paid) == Orders(drop=(NAME,))
    assert desk.heard[0] == ([PROGRESSED], 0.0)


def test_who_has_ended_is_told_at_once(paid: Visits, desk: Desk) -> None:
    desk.answer.set()
    desk.answers = [Orders(drop=(NAME,))]
    paid.say(FAILED)
    assert paid.orders(training=True) == Orders(drop=(NAME,))


def test_nobody_seated_waits_at_the_desk(paid: Visits, desk: Desk) -> None:
    desk.answer.set()
    paid.orders(training=False)
    assert desk.heard == [([], visits.IDLE_S)]


def test_what_is_said_while_a_visit_is_under_way_is_heard_before_the_pack_closes(paid: Visits, desk: Desk) -> None:
    desk.answers = [Orders(close=True), Orders(close=True)]
    assert paid.orders(training=True) == Orders()
    paid.say(FAILED)
    desk.answer.set()
    assert paid.orders(training=True) == Orders(close=True)
    assert [messages for messages, _ in desk.heard] == [[], [FAILED]]


def test_a_desk_that_is_gone_is_told(paid: Visits, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Orders:
        raise ConnectionError("the desk is gone")

    monkeypatch.setattr(desk, "visit", gone)
    paid.say(FAILED)
    with pytest.raises(ConnectionError, match="the desk is gone"):
        paid.orders(training=True)
