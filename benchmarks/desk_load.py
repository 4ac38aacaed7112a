"""One real desk, in its Ray actor, under the calls of many packs and seats: what it serves, and how soon.

    python -m benchmarks.desk_load
    python -m benchmarks.desk_load --packs 8 --seats 32
    RAY_ADDRESS=HOST:PORT python -m benchmarks.desk_load        # on a Ray of this machine's that is there already

Real: Ray, the desk's actor, every call as it goes over Ray's wire, each pack's visits in a thread of their own, each
seat awaiting its reports, and the driver that follows the events. Simulated: training, which is a pause of 0.1 s a
step. A visit of each pack waits at the desk, another comes at once when a seat has reported, and each seat's progress
is told once a second, as `pack_host` does.
Callers share the machine's cores with the desk, so that on a small machine the callers may be what is too slow: their
CPU is printed beside the desk's.

Measured while every place is filled: reports a second beside what was asked for, how long a visit with one takes, how
long a report takes from the pack to its seat, events a second that reach the driver, and CPU seconds a second of
the desk, of all callers, and of the driver, which does nothing with what it hears.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from random import Random
from typing import Any

import psutil
import ray

from benchmarks.report import machine, progress, save, table
from tunery import tasks
from tunery.cluster.messages import (
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
from tunery.cluster.remote_desk import RemoteDesk
from tunery.cluster.visits import Visits

BASE = "base"
METRICS = dict.fromkeys(("mcc", "objective", "loss", "train_loss", "examples_per_s", "tokens_per_s", "epoch"), 0.5)
PROGRESS_S = 1.0
"""`pack_host`'s, which loads torch."""
STEP_S = 0.1
"""Of a pack."""
_ENDLESS = 1_000_000


@dataclass(frozen=True)
class Size:
    """What comes to the desk."""

    packs: int = 64
    seats: int = 32
    """Of a pack."""
    report_s: float = 10.0
    """From one report of a seat to the next."""
    seconds: float = 60.0
    """That are measured."""
    callers: int = 2
    """Processes that the packs, and as many that the seats, are dealt to."""
    seed: int = 0

    @property
    def places(self) -> int:
        return self.packs * self.seats


@dataclass
class Visited:
    """What packs have seen."""

    visits_s: list[float] = field(default_factory=list)
    """How long each with a report took: it is waited for."""
    calls: int = 0
    """All visits."""
    seated: int = 0


class Counted(RemoteDesk):
    """Tells how many visits there were."""

    def __init__(self, desk: RemoteDesk) -> None:
        self._desk = desk._desk
        self.visits = 0

    def visit(self, pack: str, incarnation: int, messages: Sequence[PackMessage], *, wait_s: float) -> Future[Orders]:
        self.visits += 1
        return super().visit(pack, incarnation, messages, wait_s=wait_s)


class Packs:
    """Some of the packs: an actor with a thread for each."""

    def __init__(self, desk: RemoteDesk, size: Size, numbers: Sequence[int]) -> None:
        self._desk, self._size = desk, size
        self._found = {number: Visited() for number in numbers}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._pack, args=(number,), daemon=True) for number in numbers]

    def begin(self) -> int:
        """The process's id."""
        for thread in self._threads:
            thread.start()
        return psutil.Process().pid

    def look(self) -> Visited:
        """What there was since the last look."""
        before, self._found = self._found, {number: Visited(seated=v.seated) for number, v in self._found.items()}
        return Visited(
            [took for each in before.values() for took in each.visits_s],
            sum(each.calls for each in before.values()),
            sum(each.seated for each in before.values()),
        )

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _pack(self, number: int) -> None:
        name, size, draw = f"pack-{number}", self._size, Random(f"{self._size.seed}/{number}")
        incarnation = self._desk.open_pack(name, base=BASE, capacity=size.seats)
        desk = Counted(self._desk)
        visits = Visits(desk, name, incarnation)
        due: dict[SeatName, float] = {}
        indices: dict[SeatName, int] = {}
        told: dict[SeatName, float] = {}
        while not self._end.is_set():
            found = self._found[number]
            now = time.monotonic()
            for seat in [seat for seat, at in told.items() if now - at > PROGRESS_S]:
                told[seat] = now
                visits.say(Progressed(seat, indices[seat], _ENDLESS, 0.0, 100.0, 2000.0))
            ready = [seat for seat, at in due.items() if at <= now]
            for seat in ready:
                due[seat] += size.report_s
                visits.say(Reported(seat, _report(indices[seat])))
                indices[seat] += 1
            orders = visits.orders(training=bool(due))
            found.calls, desk.visits = found.calls + desk.visits, 0
            if ready:
                found.visits_s.append(time.monotonic() - now)
            if orders.close:
                return
            for order in orders.take:
                due[order.name] = time.monotonic() + draw.uniform(0.0, size.report_s)
                indices[order.name], told[order.name] = 0, now
                visits.say(Seated(order.name, 0, _now_ms()))
            found.seated = len(due)
            if due:
                time.sleep(STEP_S)


class Follower:
    """The driver's part: it takes the events, which the desk keeps until then."""

    def __init__(self, desk: RemoteDesk) -> None:
        self._events = self._calls = 0
        self._desk = desk
        threading.Thread(target=self._follow, daemon=True).start()

    def begin(self) -> int:
        """The process's id."""
        return psutil.Process().pid

    def look(self) -> tuple[int, int]:
        """Events until now, and calls that fetched them."""
        return self._events, self._calls

    def _follow(self) -> None:
        while True:
            self._events = self._desk.events(self._events, wait_s=0.5).upto
            self._calls += 1


class Seats:
    """Some of the seats: an actor in which each awaits its reports."""

    def __init__(self, desk: RemoteDesk, names: Sequence[SeatName]) -> None:
        # The calls themselves and not `RemoteDesk`'s, which would take a thread a seat.
        self._desk: Any = desk._desk
        self._names = names
        self._delays_s: list[float] = []

    async def begin(self) -> int:
        """Take all places; the process's id."""
        await asyncio.gather(*(self._desk.join.remote(_order(name)) for name in self._names))
        self._tasks = [asyncio.create_task(self._follow(name)) for name in self._names]
        return psutil.Process().pid

    async def look(self) -> list[float]:
        """Seconds from each report's making to its seat, of those since the last look."""
        found, self._delays_s = self._delays_s, []
        return found

    async def _follow(self, name: SeatName) -> None:
        for index in range(_ENDLESS):
            report = await self._desk.next_report.remote(name, index)
            self._delays_s.append((_now_ms() - report.at_ms) / 1000)


def _order(name: SeatName) -> SeatOrder:
    data = StudyData(tasks.get("cola"), Path("t"), {}, Path("k"), "f", 1, 1, 1, ())
    return SeatOrder(name, BASE, "{}", {}, data)


def _report(index: int) -> Report:
    return Report(index, index, _ENDLESS, float(index), _ENDLESS, 0.5, True, False, METRICS, _now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)


# -- the measurement --------------------------------------------------------------------------------------------------


def measured(size: Size) -> dict[str, Any]:
    """Raises AssertionError where the places do not fill."""
    desk = RemoteDesk()
    seat_names = [SeatName("study", number) for number in range(size.places)]
    seats_of: Any = ray.remote(Seats)
    packs_of: Any = ray.remote(Packs)
    follower_of: Any = ray.remote(Follower)
    driver = follower_of.options(num_cpus=0).remote(desk)
    seats_of = seats_of.options(num_cpus=0, max_concurrency=10_000)
    packs_of = packs_of.options(num_cpus=0, max_concurrency=4)
    seats = [seats_of.remote(desk, seat_names[n :: size.callers]) for n in range(size.callers)]
    packs = [packs_of.remote(desk, size, range(size.packs)[n :: size.callers]) for n in range(size.callers)]
    progress(f"{size.places} seats join")
    processes = [*ray.get([each.begin.remote() for each in seats]), *ray.get([each.begin.remote() for each in packs])]
    desk_process = psutil.Process(ray.get(desk._desk.__ray_call__.remote(_pid)))
    deadline = time.monotonic() + 300
    while (taken := sum(each.seated for each in ray.get([each.look.remote() for each in packs]))) < size.places:
        assert time.monotonic() < deadline, f"{taken} of {size.places} seats have a place after 300 s"
        time.sleep(0.5)  # between two looks
    time.sleep(size.report_s)  # until reports come evenly
    progress(f"measuring for {size.seconds:g} s")
    callers = [psutil.Process(pid) for pid in processes]
    ray.get([each.look.remote() for each in (*packs, *seats)])
    processes_of = ([desk_process], callers, [psutil.Process(ray.get(driver.begin.remote()))])
    heard = ray.get(driver.look.remote())
    began, before = time.monotonic(), [sum(map(_cpu, each)) for each in processes_of]
    time.sleep(size.seconds)
    found = ray.get([each.look.remote() for each in packs])
    delays = [delay for each in ray.get([each.look.remote() for each in seats]) for delay in each]
    seconds, after = time.monotonic() - began, [sum(map(_cpu, each)) for each in processes_of]
    events, fetched = (now - then for now, then in zip(ray.get(driver.look.remote()), heard, strict=True))
    ray.get([each.end.remote() for each in packs])
    cpu = [(now - then) / seconds for now, then in zip(after, before, strict=True)]
    visits = [took for each in found for took in each.visits_s]
    return {
        "visits_per_s": len(visits) / seconds,
        "reports_per_s": len(delays) / seconds,
        "reports_wanted": size.places / size.report_s,
        "visit_ms": _centiles(visits),
        "report_ms": _centiles(delays),
        "events_per_s": events / seconds,
        "calls_per_s": (sum(each.calls for each in found) + len(delays) + fetched) / seconds,
        **dict(zip(("desk_cpu", "callers_cpu", "driver_cpu"), cpu, strict=True)),
    }


def _pid(_: object) -> int:
    return psutil.Process().pid


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _centiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"median": 1000 * hundredths[49], "99%": 1000 * hundredths[98], "most": 1000 * max(seconds)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for each in fields(Size):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--name", default="desk_load", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    size = Size(**{each.name: getattr(options, each.name) for each in fields(Size)})
    where = machine()
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        found = measured(size)
    finally:
        ray.shutdown()
    print(told(size, found))
    print(f"written: {save(options.name, {'machine': where, 'size': asdict(size), **found})}")


def told(size: Size, found: dict[str, Any]) -> str:
    rows = [
        ["visits with a report", f"{found['visits_per_s']:.0f}", *_shown(found["visit_ms"])],
        ["reports", f"{found['reports_per_s']:.0f} of {found['reports_wanted']:.0f}", *_shown(found["report_ms"])],
    ]
    return "\n".join(
        [
            f"{size.places} seats in {size.packs} packs, each reporting every {size.report_s:g} s",
            table(["what", "a second", "median, ms", "99 %, ms", "most, ms"], rows),
            f"{found['calls_per_s']:.0f} calls a second (visits, reports and events that are fetched), "
            f"{found['events_per_s']:.0f} events a second to the driver; the desk took {found['desk_cpu']:.0%}, "
            f"all callers together {found['callers_cpu']:.0%}, the driver {found['driver_cpu']:.0%} of a core",
        ]
    )


def _shown(centiles: dict[str, float]) -> list[str]:
    return [f"{value:.1f}" for value in centiles.values()]


if __name__ == "__main__":
    main()
