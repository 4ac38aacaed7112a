"""A pack's visits to a desk that answers when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from tunery.cluster.messages import Failed, Orders, PackMessage, Progressed, SeatName
from tunery.cluster.visits import IDLE_S, WATCH_S, Visits

NAME = SeatName("cola", 0)
FAILED = Failed(NAME, "diverged", 0)
DROP = Orders(drop=(NAME,))
PROGRESSED = Progressed(NAME, 1, 2, 0.5, 3.0, 60.0)


class Desk:
    """Answers a visit when it is told to, or at once if it is pressing; a newer one sends off the one that waits."""

    def __init__(self) -> None:
        self.heard: list[tuple[list[PackMessage], float]] = []
        self.waiting: list[Future[Orders]] = []
        self.next = Orders()

    def visit(self, _pack: str, _incarnation: int, messages: Sequence[PackMessage], *, wait_s: float) -> Future[Orders]:
        self.heard.append((list(messages), wait_s))
        for older in self.waiting:
            older.set_result(Orders())
        visit = Future[Orders]()
        self.waiting = [visit]
        if wait_s != WATCH_S:
            self.answer(self.next)
        return visit

    def answer(self, orders: Orders) -> None:
        """To the visit that waits."""
        (visit,) = self.waiting
        self.waiting = []
        visit.set_result(orders)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def paid(desk: Any) -> Visits:
    return Visits(desk, "pack-0", 1)


def test_a_step_waits_for_no_visit_and_hears_it_later(paid: Visits, desk: Desk) -> None:
    paid.say(PROGRESSED)
    assert paid.orders(training=True) == Orders()
    paid.say(PROGRESSED)
    assert paid.orders(training=True) == Orders()
    assert desk.heard == [([PROGRESSED], WATCH_S)], "progress waits until the visit has ended"
    desk.answer(DROP)
    assert paid.orders(training=True) == DROP
    assert desk.heard == [([PROGRESSED], WATCH_S)]
    assert paid.orders(training=True) == Orders()
    assert desk.heard[1:] == [([PROGRESSED], WATCH_S)]


def test_who_has_ended_is_told_at_once_whoever_waits(paid: Visits, desk: Desk) -> None:
    desk.next = DROP
    assert paid.orders(training=True) == Orders()
    paid.say(FAILED)
    assert paid.orders(training=True) == DROP
    assert desk.heard == [([], WATCH_S), ([FAILED], 0.0)]


def test_an_answer_that_was_there_before_is_not_lost(paid: Visits, desk: Desk) -> None:
    desk.next = DROP
    paid.orders(training=True)
    desk.answer(Orders(drop=(SeatName("cola", 1),)))
    paid.say(FAILED)
    assert paid.orders(training=True).drop == (SeatName("cola", 1), NAME)


def test_nobody_seated_waits_at_the_desk(paid: Visits, desk: Desk) -> None:
    paid.orders(training=False)
    assert desk.heard == [([], IDLE_S)]


def test_what_is_there_to_say_is_heard_before_the_pack_closes(paid: Visits, desk: Desk) -> None:
    assert paid.orders(training=True) == Orders()
    paid.say(PROGRESSED)
    desk.answer(Orders(close=True))
    assert paid.orders(training=True) == Orders(close=True)
    assert [messages for messages, _ in desk.heard] == [[], [PROGRESSED]]


def test_a_desk_that_is_gone_is_told(paid: Visits, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Future[Orders]:
        visit = Future[Orders]()
        visit.set_exception(ConnectionError("the desk is gone"))
        return visit

    monkeypatch.setattr(desk, "visit", gone)
    paid.say(FAILED)
    with pytest.raises(ConnectionError, match="the desk is gone"):
        paid.orders(training=True)
