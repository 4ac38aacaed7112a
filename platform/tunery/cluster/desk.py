"""The desk: where seats (Tune trials) and packs (Ray Train jobs) meet.

A seat joins and then awaits its reports. A pack comes by between its steps: it brings what happened and takes what
it should do. The driver follows all of it as one ordered list of events. The desk holds no tensor and reads no file;
what must outlive it lies in the seats' checkpoints, which hold every report ever made.

A call costs what it changes, however many seats there are: seats wait in a line a base, a pack knows its own, and
whoever awaits something is woken by that and nothing else.

`Desk` is plain asyncio, so that it can be tested and simulated without Ray; `remote_desk` makes an actor of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tunery.cluster.messages import (
    Declined,
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

WAIVED_S = 0.1
"""For which a seat is left to a pack with fewer."""


class _Bell:
    """Wakes those who listen now."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()
        self._event.clear()

    async def heard(self, wait_s: float | None = None) -> None:
        """Until the next ring, or for `wait_s` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._event.wait()


@dataclass(eq=False)
class _Seat:
    """It waits in its base's line, or has a place in a pack, or is done: its last report is here, or it failed."""

    order: SeatOrder
    pack: _Pack | None = None
    """The pack told to take it."""
    reports: list[Report] = field(default_factory=list)
    ended: Ended | None = None
    news: _Bell = field(default_factory=_Bell)

    def is_done(self) -> bool:
        return self.ended is not None or (bool(self.reports) and self.reports[-1].final)


@dataclass(eq=False)
class _Pack:
    base: _Base
    capacity: int
    incarnation: int
    seats: dict[SeatName, _Seat] = field(default_factory=dict)
    drops: list[SeatName] = field(default_factory=list)
    """Seats that have left it and that it has not been told of."""
    full: bool = False
    """It has declined a seat, and none of its own has left since."""
    waived: bool = False
    """At its last visit it left a seat to a pack with fewer."""
    visits: int = 0
    """How often it has come."""
    orders: _Bell = field(default_factory=_Bell)

    def has_room(self) -> bool:
        return len(self.seats) < self.capacity and not self.full


@dataclass(eq=False)
class _Base:
    line: OrderedDict[SeatName, _Seat] = field(default_factory=OrderedDict)
    """The seats without a pack, the next one first."""
    idle: dict[_Pack, None] = field(default_factory=dict)
    """Packs with room that await a seat in a visit, in the order they came."""
    begun: int = 0
    """Trials that were admitted and have not ended, of all studies."""
    hopeless: str = ""
    """Why no pack can train it."""
    released: bool = False
    """No trial of it will come any more."""


class Desk:
    """All methods are coroutines on one event loop, so each runs from one await to the next undisturbed."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seats: dict[SeatName, _Seat] = {}
        self._left: dict[SeatName, Ended] = {}
        self._bases: defaultdict[str, _Base] = defaultdict(_Base)
        self._packs: dict[str, _Pack] = {}
        self._incarnations: Counter[str] = Counter()
        """Pack -> how often it was opened."""
        self._begun: Counter[str] = Counter()
        """Study -> trials that were admitted and have not ended."""
        self._base_of: dict[str, _Base] = {}
        """Study -> its base."""
        self._events: deque[tuple[str, Event]] = deque()
        self._taken = 0
        """Events before those: the driver has them."""
        self._news = _Bell()
        self._closing = False

    # -- seats -------------------------------------------------------------------------------------------------

    async def admit(self, study: str, *, base: str, limit: int) -> bool:
        """Whether the study may begin a trial now: the studies of one base have at most `limit` at once, all together.

        A trial that waits for a place is a process that does nothing, and its draw knows less than a later one would;
        so `limit` lies only a little above the number of places: see `driver.AHEAD`.
        """
        of_study = self._base_of[study] = self._bases[base]
        if of_study.begun >= limit:
            return False
        self._begun[study] += 1
        of_study.begun += 1
        return True

    async def join(self, order: SeatOrder) -> None:
        """Ask for a seat. Joining again changes nothing: Tune starts an ended trial's process anew now and then."""
        if order.name in self._seats or order.name in self._left:
            return
        seat = self._seats[order.name] = _Seat(order)
        self._record("", Joined(order, self._now_ms()))
        if reason := self._bases[order.base].hopeless:
            self._fail(seat, reason)
        else:
            self._line_up([seat], front=False)

    async def next_report(self, name: SeatName, after: int) -> Report | Ended:
        """Await the report with index `after`, or the seat's end."""
        while name not in self._left:
            seat = self._seats[name]
            if len(seat.reports) > after:
                return seat.reports[after]
            if seat.ended is not None:
                return seat.ended
            await seat.news.heard()
        return self._left[name]

    async def leave(self, name: SeatName, ending: Ending, reason: str = "") -> None:
        """The trial has ended; its pack drops the seat at its next visit."""
        if self._begun[name.study]:
            self._begun[name.study] -= 1
            self._base_of[name.study].begun -= 1
        seat = self._seats.pop(name, None)
        if seat is None:
            return
        if seat.ended is not None:
            ending, reason = seat.ended.ending, seat.ended.reason
        self._left[name] = Ended(ending, reason)
        self._take_out(seat, told=False)
        seat.news.ring()
        self._record("", Left(name, ending, reason, self._now_ms()))

    # -- packs -------------------------------------------------------------------------------------------------

    async def open_pack(self, pack: str, *, base: str, capacity: int) -> int:
        """A pack's (re)start: the seats it had wait again, to be taken from their newest checkpoints.

        Returns the incarnation that `visit` must name: a worker that was given up for dead cannot speak any more.
        """
        await self.lose_pack(pack)
        self._incarnations[pack] += 1
        self._packs[pack] = _Pack(self._bases[base], capacity, self._incarnations[pack])
        return self._incarnations[pack]

    async def lose_pack(self, pack: str) -> None:
        """The seats of a pack that died wait for a place again, before those that have not begun."""
        lost = self._packs.pop(pack, None)
        if lost is None:
            return
        lost.base.idle.pop(lost, None)
        lost.orders.ring()
        seats, lost.seats = list(lost.seats.values()), {}
        self._line_up(seats, front=True)

    async def visit(
        self, pack: str, incarnation: int, messages: Sequence[PackMessage], *, wait_s: float = 0.0
    ) -> Orders:
        """Take what happened in a pack, answer with what it should do; await up to `wait_s` for something to do.

        A pack that was given up for dead is not heard, and told to close. One that comes again while it waits here has
        the answer to the newer visit, and none to the older.
        """
        here = self._packs.get(pack)
        if here is None or here.incarnation != incarnation:
            return Orders(close=True)
        here.visits += 1
        visit = here.visits
        here.base.idle.pop(here, None)
        here.orders.ring()
        self._hear(pack, here, messages)
        orders = self._orders(here)
        if orders == Orders() and wait_s > 0:
            if here.has_room():
                here.base.idle[here] = None
            await here.orders.heard(min(wait_s, WAIVED_S) if here.waived else wait_s)
            if here.visits > visit:
                return Orders()
            here.base.idle.pop(here, None)
            # It may have been given up meanwhile, and a seat told to it now would be lost.
            orders = self._orders(here) if self._packs.get(pack) is here else Orders(close=True)
        return orders

    def _hear(self, pack: str, here: _Pack, messages: Sequence[PackMessage]) -> None:
        declined = []
        for message in messages:
            seat = here.seats.get(message.name)
            if seat is None:
                continue  # it left while the message was on its way
            if isinstance(message, Declined):
                if len(here.seats) > 1 or here.drops:
                    declined.append(seat)
                    del here.seats[message.name]
                    # What has left since the pack looked may have made the room: then it is asked again.
                    here.full = not here.drops
                    continue
                message = Failed(message.name, message.reason, self._now_ms())  # there will never be more room
            if isinstance(message, Reported):
                if message.report.index != len(seat.reports):
                    continue  # a replay from the checkpoint of a report that is here already
                seat.reports.append(message.report)
                seat.news.ring()
                if message.report.final:
                    self._take_out(seat, told=True)
            elif isinstance(message, Failed):
                seat.ended = Ended("failed", message.reason)
                seat.news.ring()
                self._take_out(seat, told=True)
            self._record(pack, message)
        self._line_up(declined, front=True)

    def _orders(self, here: _Pack) -> Orders:
        drop, here.drops = tuple(here.drops), []
        if self._closing or here.base.released:
            return Orders(drop=drop, close=True)
        take = []
        while here.base.line and here.has_room():
            if self._waives(here):
                break
            name, seat = here.base.line.popitem(last=False)
            seat.pack = here
            here.seats[name] = seat
            take.append(seat.order)
        else:
            here.waived = False
        return Orders(take=tuple(take), drop=drop)

    def _waives(self, here: _Pack) -> bool:
        """Whether a waiting seat is for a pack with fewer: where seats are few, all packs should train.

        For one visit, in which the other will have come by: it may be in a long step, or hang.
        """
        others = (pack for pack in self._packs.values() if pack.base is here.base and pack.has_room())
        here.waived = not here.waived and any(len(pack.seats) < len(here.seats) for pack in others)
        return here.waived

    # -- the driver --------------------------------------------------------------------------------------------

    async def events(self, after: int, *, wait_s: float) -> Events:
        """What happened since event number `after`; awaits up to `wait_s` for the next.

        Whoever asks has all events before `after`, and they are forgotten here.
        """
        while self._taken < after:
            self._events.popleft()
            self._taken += 1
        if not self._events and wait_s > 0:
            await self._news.heard(wait_s)
        return Events(self._taken + len(self._events), tuple(self._events))

    async def give_up_base(self, base: str, reason: str) -> None:
        """No pack can train this base: fail its seats, now and whenever one joins."""
        self._bases[base].hopeless = reason
        for seat in self._seats.values():
            if seat.order.base == base:
                self._fail(seat, reason)

    async def abandon(self, study: str) -> None:
        """The study's own process has died: nobody awaits its seats any more."""
        for name in [name for name in self._seats if name.study == study]:
            await self.leave(name, "stopped", "the study's process died")
        if begun := self._begun.pop(study, 0):
            self._base_of[study].begun -= begun

    async def wants(self, base: str) -> bool:
        """Whether a pack that begins now has something to do: it may have waited for its place until all was done."""
        return not (self._closing or self._bases[base].released)

    async def release(self, base: str) -> None:
        """All studies of this base have ended: its packs go home, and another base's may have their devices."""
        self._bases[base].released = True
        for pack in self._packs.values():
            if pack.base is self._bases[base]:
                pack.orders.ring()

    async def close(self) -> frozenset[str]:
        """Send the packs home; each writes a checkpoint of every seat before it goes. Returns those that will.

        Others still wait for their place on a node, or load their base: they have nothing to write.
        """
        self._closing = True
        for pack in self._packs.values():
            pack.orders.ring()
        return frozenset(self._packs)

    async def recall(self, events: Sequence[Event]) -> None:
        """Tell the driver what a study knew before it began."""
        for event in events:
            self._record("", event)

    # -- where a seat is ---------------------------------------------------------------------------------------

    def _line_up(self, seats: Sequence[_Seat], *, front: bool) -> None:
        """Let seats wait for a pack; at the front they come in their order before all others."""
        for seat in reversed(seats) if front else seats:
            base = self._bases[seat.order.base]
            seat.pack = None
            base.line[seat.order.name] = seat
            if front:
                base.line.move_to_end(seat.order.name, last=False)
            # One waiting pack a seat, the one with the fewest: they share what comes.
            if base.idle:
                pack = min(base.idle, key=lambda each: len(each.seats))
                del base.idle[pack]
                pack.orders.ring()

    def _take_out(self, seat: _Seat, *, told: bool) -> None:
        """Take a seat from where it is; `told`: its pack knows that."""
        name, pack = seat.order.name, seat.pack
        self._bases[seat.order.base].line.pop(name, None)
        if pack is None:
            return
        seat.pack = None
        del pack.seats[name]
        pack.full = False
        if not told:
            pack.drops.append(name)
            pack.orders.ring()

    def _fail(self, seat: _Seat, reason: str) -> None:
        if not seat.is_done():
            seat.ended = Ended("failed", reason)
            self._take_out(seat, told=False)
            seat.news.ring()
            self._record("", Failed(seat.order.name, reason, self._now_ms()))

    def _record(self, pack: str, event: Event) -> None:
        self._events.append((pack, event))
        self._news.ring()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
