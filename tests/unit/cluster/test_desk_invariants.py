"""The desk beside a plain model of it, whatever seats, packs and studies do and in whatever order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.cluster.at_the_desk import order, report
from tunery.cluster import desk
from tunery.cluster.desk import Desk
from tunery.cluster.messages import (
    Declined,
    Ended,
    Failed,
    Joined,
    Left,
    Orders,
    PackMessage,
    Report,
    Reported,
    SeatName,
)

STUDIES = ("cola", "rte", "sst2")
BASES = {"cola": "b", "rte": "b", "sst2": "c"}
PACKS = {"p0": "b", "p1": "b", "p2": "b", "p3": "c"}
FOR_EVER_S = 1e6
SEEDS = st.integers(0, 2**16)
"""One draw of Hypothesis's for many of ours: so the runs are long."""

_T = TypeVar("_T")


@dataclass
class Seat:
    """A trial, as it should be."""

    sent: list[Report] = field(default_factory=list)
    """Reports that count."""
    heard: list[Report] = field(default_factory=list)
    """By its study."""
    end: Ended | None = None
    """What its study was told."""
    failed: bool = False
    pack: str = ""
    listener: asyncio.Task[Report | Ended] | None = None

    @property
    def done(self) -> bool:
        return self.failed or any(report.final for report in self.sent)


@dataclass
class Pack:
    """What a pack's worker knows itself."""

    capacity: int
    incarnation: int
    training: dict[SeatName, int] = field(default_factory=dict)
    """Seat -> its reports."""
    outbox: list[PackMessage] = field(default_factory=list)
    visit: asyncio.Task[Orders] | None = None
    """One that waits."""
    places: list[SeatName] = field(default_factory=list)
    """The seats it was told to take and that have not left, as the desk should know it."""
    drops: list[SeatName] = field(default_factory=list)
    """What it has to be told."""
    full: bool = False


class DeskMachine(RuleBasedStateMachine):
    """Lists and counts in the place of lines, bells and tasks."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(desk, "WAIVED_S", 0.0)  # no time passes here
        self.desk = Desk(clock=lambda: 1.0)
        self.seats: dict[SeatName, Seat] = {}
        self.lines: dict[str, list[SeatName]] = {"b": [], "c": []}
        self.packs: dict[str, Pack] = {}
        self.opened: Counter[str] = Counter()
        self.left: list[SeatName] = []
        self.hopeless = False
        self.farewells: list[asyncio.Task[Any]] = []
        """Calls that the desk has to answer although nobody wants them any more, and what with."""
        self.superseded: list[asyncio.Task[Orders]] = []
        """Visits of packs that have come again."""
        self.cursor = 0
        self.events: list[Any] = []
        self.closing = False
        for name in PACKS:
            self.open_pack(name, capacity=2)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.patches.undo()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    # -- seats -------------------------------------------------------------------------------------------------

    @rule(studies=st.lists(st.sampled_from(STUDIES), min_size=1, max_size=4))
    def some_join(self, studies: list[str]) -> None:
        for study in studies:
            self.join(study)

    def join(self, study: str) -> None:
        number = sum(name.study == study for name in [*self.seats, *self.left])
        name = SeatName(study, number)
        self.seats[name] = Seat()
        if self.hopeless and BASES[study] == "c":
            self.seats[name].failed = True
        else:
            self.lines[BASES[study]].append(name)
        self._do(self.desk.join(order(number, study=study, base=BASES[study])))

    @rule(seed=SEEDS)
    def some_trials_end_or_their_processes_start_anew(self, seed: int) -> None:
        draw = Random(seed)
        for name in draw.sample(list(self.seats), min(2, len(self.seats))):
            if draw.random() < 0.3:
                self._do(self.desk.join(order(name.number, study=name.study, base=BASES[name.study])))
            else:
                self._forget(name)
                self._do(self.desk.leave(name, "pruned"))

    @rule(seed=SEEDS)
    def something_breaks(self, seed: int) -> None:
        draw = Random(seed)
        pack = draw.choice(list(PACKS))
        match draw.choice(["lost", "lost", "opened", "opened", "a dead worker speaks", "abandoned", "hopeless"]):
            case "lost":
                self._lose(pack)
                self._do(self.desk.lose_pack(pack))
            case "opened":
                self.open_pack(pack, capacity=draw.randint(1, 4))
            case "a dead worker speaks":
                self.a_dead_worker_speaks(pack)
            case "abandoned":
                self.abandon(draw.choice(STUDIES))
            case "hopeless":
                self.give_up_a_base()

    def abandon(self, study: str) -> None:
        for name in [name for name in self.seats if name.study == study]:
            self._forget(name)
        self._do(self.desk.abandon(study))

    def give_up_a_base(self) -> None:
        self.hopeless = True
        for name, seat in self.seats.items():
            if BASES[name.study] == "c" and not seat.done:
                seat.failed = True
                self._take_out(name, seat, told=False)
        self._do(self.desk.give_up_base("c", "no such model"))

    # -- packs -------------------------------------------------------------------------------------------------

    def open_pack(self, name: str, *, capacity: int) -> None:
        self._lose(name)
        self.opened[name] += 1
        incarnation = self._do(self.desk.open_pack(name, base=PACKS[name], capacity=capacity))
        assert incarnation == self.opened[name]
        self.packs[name] = Pack(capacity, incarnation)
        self._settle()

    def a_dead_worker_speaks(self, name: str) -> None:
        messages = [Reported(seat, report(len(self.seats[seat].sent))) for seat in self.seats]
        dead = self.opened[name] - (name in self.packs)
        self.farewells.append(self.loop.create_task(self.desk.visit(name, dead, messages, wait_s=FOR_EVER_S)))
        self._settle()

    @rule(seeds=st.lists(SEEDS, min_size=1, max_size=5), waits=st.booleans())
    def the_packs_train(self, seeds: list[int], waits: bool) -> None:
        for seed in seeds:
            for name, pack in list(self.packs.items()):
                self.visit(name, pack, Random(f"{seed}/{name}"), waits=waits)

    def visit(self, name: str, pack: Pack, draw: Random, *, waits: bool) -> None:
        """Between two visits each seat of the pack may do something, also while the first still waits at the desk."""
        for seat in list(pack.training):
            what = draw.choice(["nothing", "reports", "repeats", "finishes", "fails"])
            if what in ("reports", "finishes"):
                pack.outbox.append(Reported(seat, report(pack.training[seat], final=what == "finishes")))
                pack.training[seat] += 1
            elif what == "repeats":
                pack.outbox.extend(Reported(seat, report(index)) for index in range(pack.training[seat]))
            elif what == "fails":
                pack.outbox.append(Failed(seat, "diverged", 0))
            if what in ("finishes", "fails"):
                del pack.training[seat]
        messages, pack.outbox = pack.outbox, []
        self._hear(name, pack, messages)
        wait_s = FOR_EVER_S if waits else 0.0
        if pack.visit:
            self.superseded.append(pack.visit)
        pack.visit = self.loop.create_task(self.desk.visit(name, pack.incarnation, messages, wait_s=wait_s))
        self._settle()
        assert waits or not pack.visit
        for declined in [seat for seat in pack.training if draw.random() < 0.25]:
            if len(pack.training) > 1:
                pack.outbox.append(Declined(declined, "no room"))
                del pack.training[declined]

    @precondition(lambda self: len(self.left) > 4)
    @rule()
    def close(self) -> None:
        self.closing = True
        self._do(self.desk.close())
        assert not any(pack.visit for pack in self.packs.values()), "none waits any more"

    # -- the model ---------------------------------------------------------------------------------------------

    def _forget(self, name: SeatName) -> None:
        """The study ends a trial."""
        seat = self.seats.pop(name)
        self.left.append(name)
        self._take_out(name, seat, told=False)
        if seat.listener:
            self.farewells.append(seat.listener)

    def _take_out(self, name: SeatName, seat: Seat, *, told: bool) -> None:
        line = self.lines[BASES[name.study]]
        if name in line:
            line.remove(name)
        if seat.pack:
            pack = self.packs[seat.pack]
            seat.pack, pack.full = "", False
            pack.places.remove(name)
            if not told:
                pack.drops.append(name)

    def _lose(self, name: str) -> None:
        if pack := self.packs.pop(name, None):
            for seat in pack.places:
                self.seats[seat].pack = ""
            self.lines[PACKS[name]][:0] = pack.places
            if pack.visit:
                self.farewells.append(pack.visit)

    def _hear(self, name: str, pack: Pack, messages: list[PackMessage]) -> None:
        back = []
        for message in messages:
            seat = self.seats.get(message.name)
            if seat is None or seat.pack != name:
                continue
            match message:
                case Reported(_, news) if news.index == len(seat.sent):
                    seat.sent.append(news)
                    if news.final:
                        self._take_out(message.name, seat, told=True)
                case Failed():
                    seat.failed = True
                    self._take_out(message.name, seat, told=True)
                case Declined() if len(pack.places) == 1 and not pack.drops:
                    seat.failed = True
                    self._take_out(message.name, seat, told=True)
                case Declined():
                    seat.pack = ""
                    pack.places.remove(message.name)
                    pack.full = not pack.drops
                    back.append(message.name)
        self.lines[PACKS[name]][:0] = back

    def _obey(self, name: str, pack: Pack, orders: Orders) -> None:
        assert list(orders.drop) == pack.drops
        pack.drops = []
        for dropped in orders.drop:
            pack.training.pop(dropped, None)
        assert orders.close == self.closing
        line = self.lines[PACKS[name]]
        for taken in orders.take:
            assert taken.name == line.pop(0), "the one that waited longest"
            assert taken.name not in pack.training
            self.seats[taken.name].pack = name
            pack.places.append(taken.name)
            pack.training[taken.name] = len(self.seats[taken.name].sent)
        assert len(pack.training) <= pack.capacity
        assert not (pack.full and orders.take)

    # -- the loop ----------------------------------------------------------------------------------------------

    def _do(self, call: Coroutine[Any, Any, _T]) -> _T:
        result = self.loop.run_until_complete(call)
        self._settle()
        return result

    def _settle(self) -> None:
        """Until nobody has anything left to do."""
        for name, seat in self.seats.items():
            self._listen(name, seat)
        for _ in range(20):
            self.loop.run_until_complete(asyncio.sleep(0))
            self._end_visits()
            for name, seat in self.seats.items():
                if seat.listener and seat.listener.done():
                    self._heard(seat, seat.listener.result())
                    self._listen(name, seat)
        for task in self.farewells:
            assert task.done(), task
            assert task.result() == Orders(close=True) or isinstance(task.result(), Ended)
        assert all(task.result() == Orders() for task in self.superseded)
        self.farewells, self.superseded = [], []

    def _end_visits(self) -> None:
        ended = {name: pack for name, pack in self.packs.items() if pack.visit and pack.visit.done()}

        def first(name: str) -> int:
            line = self.lines[PACKS[name]]
            task = ended[name].visit
            assert task
            return min((line.index(taken.name) for taken in task.result().take if taken.name in line), default=0)

        for name in sorted(ended, key=first):
            pack = ended[name]
            assert pack.visit
            orders, pack.visit = pack.visit.result(), None
            self._obey(name, pack, orders)

    def _listen(self, name: SeatName, seat: Seat) -> None:
        if not (seat.listener or seat.end or any(report.final for report in seat.heard)):
            seat.listener = self.loop.create_task(self.desk.next_report(name, len(seat.heard)))

    @staticmethod
    def _heard(seat: Seat, answer: Report | Ended) -> None:
        seat.listener = None
        if isinstance(answer, Ended):
            seat.end = answer
        else:
            seat.heard.append(answer)

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def no_seat_is_in_two_packs(self) -> None:
        trained = Counter(seat for pack in self.packs.values() for seat in pack.training if seat in self.seats)
        assert all(count == 1 for count in trained.values()), trained

    @invariant()
    def every_report_is_heard_once_and_every_end_is_told(self) -> None:
        for name, seat in self.seats.items():
            assert seat.heard == seat.sent, name
            assert (seat.end is not None) == seat.failed, name

    @invariant()
    def no_place_is_free_for_a_pack_that_waits_while_a_seat_waits_too(self) -> None:
        for name, pack in self.packs.items():
            if pack.visit and not pack.full and len(pack.places) < pack.capacity:
                assert not self.lines[PACKS[name]]

    @invariant()
    def the_driver_hears_of_everything_once_and_in_order(self) -> None:
        news = self.loop.run_until_complete(self.desk.events(self.cursor, wait_s=0.0))
        assert news.upto == self.cursor + len(news.events)
        self.cursor = news.upto
        self.events += [event for _, event in news.events]
        joined = Counter(event.order.name for event in self.events if isinstance(event, Joined))
        assert joined == Counter([*self.seats, *self.left])
        assert Counter(event.name for event in self.events if isinstance(event, Left)) == Counter(self.left)
        for name, seat in self.seats.items():
            mine = [event.report for event in self.events if isinstance(event, Reported) and event.name == name]
            assert mine == seat.sent


TestDesk = DeskMachine.TestCase
TestDesk.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
