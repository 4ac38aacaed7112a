"""The desk: where seats (Tune trials) and packs (Ray Train jobs) meet.

A seat joins and then awaits its reports. A pack comes by between its steps: it brings what happened and takes what
it should do. The driver follows all of it as one ordered list of events. The desk holds no tensor and reads no file;
what must outlive it lies in the seats' checkpoints, which hold every report ever made.

`Desk` is plain asyncio, so that it can be tested and simulated without Ray; `driver` makes an actor of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tunery.cluster.messages import (
    Ended,
    Ending,
    Event,
    Events,
    Failed,
    Joined,
    Left,
    Orders,
    PackMessage,
    Report,
    Reported,
    SeatName,
    SeatOrder,
)


@dataclass
class _Seat:
    order: SeatOrder
    pack: str = ""
    """The pack told to take it; empty while it waits."""
    reports: list[Report] = field(default_factory=list)
    ended: Ended | None = None


@dataclass
class _Pack:
    base: str
    capacity: int
    incarnation: int


class Desk:
    """All methods are coroutines on one event loop, so each runs from one await to the next undisturbed."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seats: OrderedDict[SeatName, _Seat] = OrderedDict()
        self._packs: dict[str, _Pack] = {}
        self._drops: dict[str, list[SeatName]] = {}
        self._events: list[tuple[str, Event]] = []
        self._left: dict[SeatName, Ended] = {}
        self._hopeless: dict[str, str] = {}
        self._bases: dict[str, str] = {}
        """Study -> its base."""
        self._begun: Counter[str] = Counter()
        """Study -> trials that were admitted and have not ended."""
        self._closing = False
        self._changed = asyncio.Condition()

    # -- seats -------------------------------------------------------------------------------------------------

    async def admit(self, study: str, *, base: str, limit: int) -> bool:
        """Whether the study may begin a trial now: the studies of one base have at most `limit` at once, all together.

        A trial that waits for a seat is a process that does nothing, and its draw knows less than a later one would.
        """
        self._bases[study] = base
        if sum(count for other, count in self._begun.items() if self._bases[other] == base) >= limit:
            return False
        self._begun[study] += 1
        return True

    async def join(self, order: SeatOrder) -> None:
        """Ask for a seat. Joining again changes nothing: Tune starts an ended trial's process anew now and then."""
        if order.name not in self._seats and order.name not in self._left:
            seat = self._seats[order.name] = _Seat(order)
            await self._record("", Joined(order, self._now_ms()))
            if order.base in self._hopeless:
                await self._fail([seat], self._hopeless[order.base])

    async def next_report(self, name: SeatName, after: int) -> Report | Ended:
        """Await the report with index `after`, or the seat's end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._answer(name, after) is not None)
            answer = self._answer(name, after)
            assert answer is not None
            return answer

    def _answer(self, name: SeatName, after: int) -> Report | Ended | None:
        if name in self._left:
            return self._left[name]
        seat = self._seats[name]
        if len(seat.reports) > after:
            return seat.reports[after]
        return seat.ended

    async def leave(self, name: SeatName, ending: Ending, reason: str = "") -> None:
        """The trial has ended; its pack drops the seat at its next visit."""
        if self._begun[name.study]:
            self._begun[name.study] -= 1
        seat = self._seats.pop(name, None)
        if seat is None:
            return
        if seat.ended is not None:
            ending, reason = seat.ended.ending, seat.ended.reason
        else:
            self._give_up_place(seat)
        self._left[name] = Ended(ending, reason)
        await self._record("", Left(name, ending, reason, self._now_ms()))

    def _give_up_place(self, seat: _Seat) -> None:
        if seat.pack:
            self._drops.setdefault(seat.pack, []).append(seat.order.name)

    # -- packs -------------------------------------------------------------------------------------------------

    async def open_pack(self, pack: str, *, base: str, capacity: int) -> int:
        """A pack's (re)start: the seats it had wait again, to be taken from their newest checkpoints.

        Returns the incarnation that `visit` must name: a worker that was given up for dead cannot speak any more.
        """
        incarnation = self._packs[pack].incarnation + 1 if pack in self._packs else 1
        self._packs[pack] = _Pack(base, capacity, incarnation)
        await self.lose_pack(pack)
        return incarnation

    async def lose_pack(self, pack: str) -> None:
        """The seats of a pack that died wait for a place again."""
        self._drops.pop(pack, None)
        for seat in self._seats.values():
            if seat.pack == pack:
                seat.pack = ""
        async with self._changed:
            self._changed.notify_all()

    async def visit(
        self, pack: str, incarnation: int, messages: Sequence[PackMessage], *, wait_s: float = 0.0
    ) -> Orders:
        """Take what happened in a pack, answer with what it should do; await up to `wait_s` for something to do."""
        if self._packs[pack].incarnation != incarnation:
            return Orders(close=True)
        if messages:
            await self._take(pack, messages)
        orders = self._orders(pack)
        if orders == Orders() and await self._wait(lambda: self._has_orders(pack), wait_s):
            orders = self._orders(pack)
        return orders

    async def _take(self, pack: str, messages: Sequence[PackMessage]) -> None:
        for message in messages:
            seat = self._seats.get(message.name)
            if seat is None or seat.pack != pack:
                continue  # it left while the message was on its way
            if isinstance(message, Reported):
                if message.report.index != len(seat.reports):
                    continue  # a replay from the checkpoint of a report that is here already
                seat.reports.append(message.report)
            elif isinstance(message, Failed):
                seat.ended = Ended("failed", message.reason)
                self._give_up_place(seat)
            self._events.append((pack, message))
        async with self._changed:
            self._changed.notify_all()

    def _orders(self, pack: str) -> Orders:
        drop = tuple(self._drops.pop(pack, ()))
        if self._closing:
            return Orders(drop=drop, close=True)
        here = self._packs[pack]
        free = here.capacity - sum(1 for s in self._seats.values() if s.pack == pack and s.ended is None)
        take = [s for s in self._seats.values() if self._waits_for(s, here)][: max(0, free)]
        for seat in take:
            seat.pack = pack
        return Orders(take=tuple(s.order for s in take), drop=drop)

    def _has_orders(self, pack: str) -> bool:
        here = self._packs[pack]
        return self._closing or pack in self._drops or any(self._waits_for(s, here) for s in self._seats.values())

    @staticmethod
    def _waits_for(seat: _Seat, pack: _Pack) -> bool:
        return not seat.pack and seat.ended is None and seat.order.base == pack.base

    # -- the driver --------------------------------------------------------------------------------------------

    async def events(self, after: int, *, wait_s: float) -> Events:
        """What happened since event number `after`; awaits up to `wait_s` for the next."""
        await self._wait(lambda: len(self._events) > after, wait_s)
        return Events(len(self._events), tuple(self._events[after:]))

    async def give_up_base(self, base: str, reason: str) -> None:
        """No pack can train this base: fail its seats, now and whenever one joins."""
        self._hopeless[base] = reason
        await self._fail([seat for seat in self._seats.values() if seat.order.base == base], reason)

    async def abandon(self, study: str) -> None:
        """The study's own process has died: nobody awaits its seats any more."""
        for name in [name for name in self._seats if name.study == study]:
            await self.leave(name, "stopped", "the study's process died")
        self._begun.pop(study, None)

    async def _fail(self, seats: Iterable[_Seat], reason: str) -> None:
        for seat in seats:
            if seat.ended is None:
                seat.ended = Ended("failed", reason)
                self._give_up_place(seat)
                self._events.append((seat.pack, Failed(seat.order.name, reason, self._now_ms())))
        async with self._changed:
            self._changed.notify_all()

    async def close(self) -> None:
        """Send the packs home; each writes a checkpoint of every seat before it goes."""
        self._closing = True
        async with self._changed:
            self._changed.notify_all()

    async def recall(self, events: Sequence[Event]) -> None:
        """Tell the driver what a study knew before it began."""
        self._events.extend(("", event) for event in events)
        async with self._changed:
            self._changed.notify_all()

    async def seated(self) -> Collection[SeatName]:
        """The seats in packs now."""
        return tuple(name for name, seat in self._seats.items() if seat.pack)

    async def _wait(self, condition: Callable[[], bool], wait_s: float) -> bool:
        """Whether the condition holds, or came to hold within `wait_s`."""
        if wait_s > 0 and not condition():
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait_for(condition), wait_s)
        return condition()

    async def _record(self, pack: str, event: Event) -> None:
        self._events.append((pack, event))
        async with self._changed:
            self._changed.notify_all()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
