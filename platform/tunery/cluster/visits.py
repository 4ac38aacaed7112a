"""A pack's visits to the desk: in the background while a step is computed, at once where there is something to say."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from tunery.cluster.messages import Orders, PackMessage, Progressed
from tunery.cluster.remote_desk import RemoteDesk

INTERVAL_S = 0.1
"""Least time between two visits while training."""
IDLE_S = 5.0
"""For which a visit waits for something to do while nobody is seated."""


class Visits:
    """Of one pack. One is under way at a time, so that what is said is heard in its order."""

    def __init__(self, desk: RemoteDesk, pack: str, incarnation: int) -> None:
        self._desk, self._pack, self._incarnation = desk, pack, incarnation
        self._messages: list[PackMessage] = []
        self._calls = ThreadPoolExecutor(1, "visit")
        self._visit: Future[Orders] | None = None
        self._began = 0.0

    def say(self, *messages: PackMessage) -> None:
        """With the next visit."""
        self._messages.extend(messages)

    def orders(self, *, training: bool) -> Orders:
        """What the desk wants to have done; while training it is asked now and then, and no step waits for it."""
        # Who has ended has left a place, which the answer may fill.
        pressing = not training or not all(isinstance(message, Progressed) for message in self._messages)
        orders = self._answer(wait=pressing)
        due = pressing or self._messages or time.monotonic() - self._began > INTERVAL_S
        if self._visit is None and due and orders == Orders():
            self._ask(training=training)
            orders = self._answer(wait=pressing)
        if orders.close and self._messages:
            # The desk hears what there is to say before it says again to close.
            self._ask(training=training)
            orders = self._answer(wait=True)
        return orders

    def _ask(self, *, training: bool) -> None:
        messages, self._messages = self._messages, []
        self._began = time.monotonic()
        wait_s = 0.0 if training else IDLE_S
        self._visit = self._calls.submit(self._desk.visit, self._pack, self._incarnation, messages, wait_s=wait_s)

    def _answer(self, *, wait: bool) -> Orders:
        """Of the visit that is under way, if it is there or to be waited for."""
        if self._visit is None or not (wait or self._visit.done()):
            return Orders()
        orders, self._visit = self._visit.result(), None
        return orders
