"""A pack's visits to the desk: one waits there while steps are computed, and who has something to say comes at once."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait

from tunery.cluster.messages import Orders, PackMessage, Progressed
from tunery.cluster.remote_desk import RemoteDesk

WATCH_S = 1.0
"""For which a visit waits for something to do while the pack trains. Each costs the cores that steps are computed on a
millisecond or two, here and at the desk: ten a second would slow them by a percent or two on a small machine."""
IDLE_S = 5.0
"""The same while nobody is seated."""


class Visits:
    """Of one pack. What is said is heard in its order: Ray brings an actor one caller's calls as they were made."""

    def __init__(self, desk: RemoteDesk, pack: str, incarnation: int) -> None:
        self._desk, self._pack, self._incarnation = desk, pack, incarnation
        self._messages: list[PackMessage] = []
        self._under_way: list[Future[Orders]] = []
        """One, or two for as long as the desk needs to send the first one off when the second comes."""

    def say(self, *messages: PackMessage) -> None:
        """With the next visit."""
        self._messages.extend(messages)

    def orders(self, *, training: bool) -> Orders:
        """What the desk wants to have done; no step waits for it, unless someone has ended."""
        # Who has ended has left a place, which the answer may fill.
        pressing = not training or not all(isinstance(message, Progressed) for message in self._messages)
        if pressing:
            self._ask(0.0 if training else IDLE_S)
        elif not self._under_way:
            self._ask(WATCH_S)
        orders = self._answer(wait_for_it=pressing)
        if orders.close and self._messages:
            # The desk hears what there is to say before the pack closes.
            self._ask(0.0)
            orders = orders.and_then(self._answer(wait_for_it=True))
        return orders

    def _ask(self, wait_s: float) -> None:
        messages, self._messages = self._messages, []
        self._under_way.append(self._desk.visit(self._pack, self._incarnation, messages, wait_s=wait_s))

    def _answer(self, *, wait_for_it: bool) -> Orders:
        """Of the visits that have ended: of one that has orders, or of all, where they are waited for."""
        orders = Orders()
        while True:
            ended = [visit for visit in self._under_way if visit.done()]
            self._under_way = [visit for visit in self._under_way if visit not in ended]
            for visit in ended:
                orders = orders.and_then(visit.result())
            if not wait_for_it or orders != Orders() or not self._under_way:
                return orders
            wait(self._under_way, return_when=FIRST_COMPLETED)
