"""The desk under many packs: a simulation on a simulated clock, without Ray, Tune and engines.

    python -m benchmarks.desk_simulation

Real: `Desk`, on a real event loop whose clock jumps to the next event. Simulated: the packs, which visit as
`Visits` does (between two steps at once when there is news; else one waits at the desk); the studies, which act on one
report or end at a time as Ray Tune does and stop trials as ASHA does; the seats; the driver, which reads the events.

Measured: the desk's CPU seconds (of its thread, while its code runs) over the simulated seconds, for each window of
them, and how soon a place is taken again. The claim: the desk is never above 5% busy with 10,000 trials over 64 packs.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import statistics
import time
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar

from benchmarks.places import Places, Refills
from benchmarks.report import machine, save
from tunery import tasks
from tunery.cluster.desk import Desk
from tunery.cluster.messages import (
    Ended,
    Joined,
    Left,
    Orders,
    PackMessage,
    Progressed,
    Report,
    Reported,
    Seated,
    SeatName,
    SeatOrder,
    StudyData,
)
from tunery.cluster.visits import IDLE_S, WATCH_S

CLAIM = 0.05
PROGRESS_INTERVAL_S = 1.0
METRICS = dict.fromkeys(("mcc", "objective", "loss", "train_loss", "examples_per_s", "tokens_per_s", "epoch"), 0.5)

_T = TypeVar("_T")

_TASK = tasks.get("cola")


# -- the clock --------------------------------------------------------------------------------------------------------


class _Selector(selectors.SelectSelector):
    """Where a loop would wait, time passes instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nothing will happen any more"
        self.now += max(0.0, timeout)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which a second takes no time."""

    def __init__(self) -> None:
        self._simulated = _Selector()
        super().__init__(self._simulated)

    def time(self) -> float:
        return self._simulated.now


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


@dataclass
class Meter:
    """CPU seconds of the desk by window of simulated time."""

    window_s: float
    seconds: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    stretches: Counter[str] = field(default_factory=Counter)
    """Method -> times that its code was entered: a call, or one of its waits that ended."""

    def __call__(self, call: Coroutine[Any, Any, _T]) -> _Metered[_T]:
        return _Metered(self, call)

    def add(self, method: str, seconds: float) -> None:
        self.seconds[int(asyncio.get_running_loop().time() / self.window_s)] += seconds
        self.stretches[method] += 1

    def busy(self) -> list[float]:
        """Share of each window."""
        return [self.seconds[window] / self.window_s for window in range(max(self.seconds) + 1)]


@dataclass
class _Metered(Generic[_T]):
    """A call of the desk, with every stretch of it between two awaits on the meter."""

    meter: Meter
    call: Coroutine[Any, Any, _T]

    def __await__(self) -> Generator[Any, Any, _T]:
        go_on: Callable[[Any], Any] = self.call.send
        given: Any = None
        while True:
            began = time.thread_time()
            try:
                awaited = go_on(given)
            except StopIteration as end:
                result: _T = end.value
                return result
            finally:
                self.meter.add(getattr(self.call, "__name__", ""), time.thread_time() - began)
            try:
                go_on, given = self.call.send, (yield awaited)
            except BaseException as error:  # a cancellation, which is the call's to see
                go_on, given = self.call.throw, error


# -- who comes to the desk --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What is simulated."""

    packs: int = 64
    seats: int = 8
    """Places of a pack."""
    studies: int = 8
    trials: int = 10_000
    """Of all studies."""
    evaluations: int = 9
    """Of a trial that is not stopped."""
    steps: int = 50
    """Between two evaluations."""
    step_s: float = 0.2
    """Mean over the packs: each has a pace of its own, from half of it to half as much again."""
    result_s: float = 0.03
    """What Tune takes to act on a report."""
    begin_s: float = 0.1
    """What Tune takes to begin a trial."""
    ahead: int = 1
    """Trials that may be begun beyond the places, a pack."""
    reduction: int = 3
    """ASHA's, with rungs at 1, 3, 9, ... evaluations."""
    seed: int = 0

    @property
    def limit(self) -> int:
        return self.packs * (self.seats + self.ahead)


@dataclass
class _Training:
    step: int = 0
    reports: int = 0
    progressed_at: float = 0.0


@dataclass
class Simulation:
    """All of it, on one desk."""

    size: Size
    window_s: float = 10.0
    desk: Desk = field(init=False)
    meter: Meter = field(init=False)
    begun: Counter[SeatName] = field(default_factory=Counter)
    reported: Counter[SeatName] = field(default_factory=Counter)
    heard: Counter[SeatName] = field(default_factory=Counter)
    ended: Counter[SeatName] = field(default_factory=Counter)
    """Joins, reports of packs, reports that studies heard, and ends: by trial."""
    visits: int = 0
    refills: list[Refills] = field(default_factory=list)
    simulated_s: float = 0.0

    async def run(self) -> None:
        self.desk = Desk(clock=asyncio.get_running_loop().time)
        self.meter = Meter(self.window_s)
        size = self.size
        packs = [asyncio.create_task(self._pack(f"pack-{number}")) for number in range(size.packs)]
        driver = asyncio.create_task(self._driver())
        trials = [size.trials // size.studies + (n < size.trials % size.studies) for n in range(size.studies)]
        await asyncio.gather(*(_Study(self, f"study-{n}", count).run() for n, count in enumerate(trials)))
        self.simulated_s = asyncio.get_running_loop().time()
        await self.meter(self.desk.close())
        await asyncio.gather(*packs)
        await driver

    async def _pack(self, name: str) -> None:
        size, desk, clock = self.size, self.desk, asyncio.get_running_loop().time
        pace_s = size.step_s * Random(f"{size.seed}/{name}").uniform(0.5, 1.5)
        incarnation = await self.meter(desk.open_pack(name, base="base", capacity=size.seats))
        seats: dict[SeatName, _Training] = {}
        places = Places(size.seats, clock)
        messages: list[PackMessage] = []
        watching: asyncio.Future[Orders] | None = None

        def visit(wait_s: float) -> asyncio.Future[Orders]:
            nonlocal messages
            said, messages = messages, []
            self.visits += 1
            return asyncio.ensure_future(self.meter(desk.visit(name, incarnation, said, wait_s=wait_s)))

        while True:
            pressing = not seats or not all(isinstance(message, Progressed) for message in messages)
            orders = await visit(0.0 if seats else IDLE_S) if pressing else Orders()
            if watching is not None and watching.done():
                orders, watching = watching.result().and_then(orders), None
            if watching is None and seats:
                watching = visit(WATCH_S)
            for dropped in orders.drop:
                if seats.pop(dropped, None) is not None:
                    places.left()
            if orders.close:
                self.refills.append(places.result())
                return
            for order in orders.take:
                seats[order.name] = _Training()
                places.taken()
            messages += [Seated(order.name, 0, 0) for order in orders.take]
            if seats:
                await asyncio.sleep(pace_s)
                places.trained(len(seats))
                for seat in list(seats):
                    if message := self._trained(seat, seats[seat], clock()):
                        messages.append(message)
                        if isinstance(message, Reported) and message.report.final:
                            del seats[seat]
                            places.left()

    def _trained(self, name: SeatName, training: _Training, now: float) -> PackMessage | None:
        """What a pack says of a seat after a step."""
        size = self.size
        training.step += 1
        if training.step % size.steps == 0:
            index, training.reports = training.reports, training.reports + 1
            self.reported[name] += 1
            final = training.reports == size.evaluations
            epoch = float(training.reports)
            steps = size.steps * size.evaluations
            report = Report(index, training.step, steps, epoch, size.evaluations, 0.5, True, final, METRICS, 0)
            return Reported(name, report)
        if now - training.progressed_at > PROGRESS_INTERVAL_S:
            training.progressed_at = now
            return Progressed(name, training.step, size.steps * size.evaluations, 0.0, 100.0, 2000.0)
        return None

    async def _driver(self) -> None:
        cursor = 0
        while sum(self.ended.values()) < self.size.trials:
            news = await self.meter(self.desk.events(cursor, wait_s=0.5))
            cursor = news.upto
            for _, event in news.events:
                if isinstance(event, Joined):
                    self.begun[event.order.name] += 1
                elif isinstance(event, Left):
                    self.ended[event.name] += 1


class _Study:
    """Ray Tune with one study: it does one thing after another."""

    def __init__(self, simulation: Simulation, name: str, trials: int) -> None:
        self._all = simulation
        self._size = simulation.size
        self._name = name
        self._left = trials
        self._live = 0
        self._next = 0
        self._answers: asyncio.Queue[tuple[SeatName, Report | Ended]] = asyncio.Queue()
        self._draw = Random(f"{simulation.size.seed}/{name}")
        self._quality: dict[SeatName, float] = {}
        self._rungs: defaultdict[int, list[float]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        meter, desk = self._all.meter, self._all.desk
        while self._left or self._live:
            while self._left and await meter(desk.admit(self._name, base="base", limit=self._size.limit)):
                await self._begin()
            try:
                async with asyncio.timeout(0.1 if self._left else None):  # Tune's own pace of asking again
                    name, answer = await self._answers.get()
            except TimeoutError:
                continue
            await asyncio.sleep(self._size.result_s)
            assert isinstance(answer, Report), answer
            self._all.heard[name] += 1
            if answer.final or self._stops(name, answer.index + 1):
                self._live -= 1
                await meter(desk.leave(name, "finished" if answer.final else "pruned"))
            else:
                self._await(name, answer.index + 1)

    async def _begin(self) -> None:
        await asyncio.sleep(self._size.begin_s)
        name = SeatName(self._name, self._next)
        self._next, self._left, self._live = self._next + 1, self._left - 1, self._live + 1
        self._quality[name] = self._draw.random()
        order = SeatOrder(name, "base", "{}", {}, StudyData(_TASK, Path("t"), {}, Path("k"), "f", 1, 1, 1, ()))
        await self._all.meter(self._all.desk.join(order))
        self._await(name, 0)

    def _await(self, name: SeatName, after: int) -> None:
        async def wait() -> None:
            self._answers.put_nowait((name, await self._all.meter(self._all.desk.next_report(name, after))))

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _stops(self, name: SeatName, evaluations: int) -> bool:
        reduction = self._size.reduction
        if evaluations not in {reduction**rung for rung in range(10)}:
            return False
        rung = self._rungs[evaluations]
        insort(rung, self._quality[name])
        return self._quality[name] < rung[len(rung) * (reduction - 1) // reduction]


# -- the command ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for each in fields(Size):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--window-s", type=float, default=10.0, help="simulated seconds of a window")
    parser.add_argument("--name", default="desk_simulation", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    size = Size(**{each.name: getattr(options, each.name) for each in fields(Size)})
    where = machine()
    simulation = Simulation(size, options.window_s)
    began = time.thread_time()
    run(simulation.run())
    whole_s = time.thread_time() - began
    check(simulation)
    busy = simulation.meter.busy()
    refills = Refills.together(simulation.refills)
    print(report(simulation, busy, refills, whole_s))
    content = {"size": asdict(size), "busy": busy, "whole_s": whole_s, "simulated_s": simulation.simulated_s,
               "visits": simulation.visits, "stretches": simulation.meter.stretches,
               "filled": refills.filled, "refills": Counter(refills.steps)}  # fmt: skip
    print(f"written: {save(options.name, {'machine': where, **content})}")


def check(simulation: Simulation) -> None:
    """Every trial began once and ended once, and its study heard each of its reports once, up to its end."""
    trials = simulation.size.trials
    for counts in (simulation.begun, simulation.ended):
        assert len(counts) == trials
        assert set(counts.values()) == {1}
    assert all(simulation.heard[name] <= simulation.reported[name] for name in simulation.ended)


def report(simulation: Simulation, busy: Sequence[float], refills: Refills, whole_s: float) -> str:
    size, seconds = simulation.size, simulation.simulated_s
    holds = "holds" if max(busy) < CLAIM else "FAILS"
    return "\n".join(
        [
            f"{size.trials} trials of {size.studies} studies in {size.packs} packs of {size.seats} seats: "
            f"{seconds:.0f} simulated s, {simulation.visits / seconds:.0f} visits/s, "
            f"{sum(simulation.reported.values()) / seconds:.0f} reports/s",
            f"desk busy {statistics.mean(busy):.2%} of the time, {max(busy):.2%} in the busiest window of "
            f"{simulation.window_s:g} s  (claim: never above {CLAIM:.0%})  {holds}",
            f"{sum(busy) * simulation.window_s / simulation.meter.stretches.total() * 1e6:.1f} us a call or wake-up; "
            f"the whole simulation took {whole_s / seconds:.2%}",
            refills.told(),
        ]
    )


if __name__ == "__main__":
    main()
