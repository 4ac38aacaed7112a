"""What a trial costs beside its training: a whole run whose pack trains nothing.

    python -m benchmarks.control_plane --trials 200 --repeats 3

Real: the driver, Ray and its processes, the desk, Ray Tune with the seats, Optuna's database, TPE and ASHA, the run's
state, the spool and its way to MLflow, both databases in sqlite. Replaced: a pack is a process that waits for
`--step-s` in place of a step and reports each seat every `--steps` (no model, no checkpoints); it opens when the first
trials have joined, as one does that has a model to load; and nothing is registered at the end. The clock runs from the
start of the study's process to its end; Ray's start and tokenising lie before.

The claim: at most 0.3 s a trial on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import ray

from benchmarks.places import Places, Refills
from benchmarks.report import machine, save, table
from storage.files import write_whole
from tunery.cluster import hosting
from tunery.cluster.driver import Driver, open_driver
from tunery.cluster.messages import Report, Reported, Seated, SeatName
from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.visits import Visits
from tunery.home import Home
from tunery.plan import Plan, Study, compile_plan
from tunery.profile import load_profile
from tunery.runs import RunFolder
from tunery.spec import parse_spec

CLAIM_S = 0.3
PLACES = "places.json"
"""In the run's folder: how the stand-in's places were filled."""
JOINED = "joined"
"""In the run's folder: as many trials have joined as may run at once, each in a process of its own."""
METRICS = ("mcc", "objective", "loss", "train_loss", "examples_per_s", "tokens_per_s", "peak_memory_bytes",
           "trainable_parameters", "total_parameters", "epoch")  # fmt: skip
"""As many as a pack reports."""


# -- the stand-in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StandIn:
    """In the place of `jobs.PackHosts`; `steps` is from one evaluation of a seat to the next."""

    step_s: float
    steps: int
    evaluations: int

    def host(self, order: PackOrder, resources: Resources, storage_path: Path) -> str:
        del resources, storage_path
        desk, seats = order.desk, dict[SeatName, int]()
        places = Places(order.capacity, time.monotonic)
        while not (order.run / JOINED).exists():
            time.sleep(0.05)
        incarnation = desk.open_pack(order.pack, base=order.base_key, capacity=order.capacity)
        visits = Visits(desk, order.pack, incarnation)
        while True:
            orders = visits.orders(training=bool(seats))
            for name in orders.drop:
                if seats.pop(name, None) is not None:
                    places.left()
            if orders.close:
                write_whole(order.run / PLACES, json.dumps(asdict(places.result())).encode())
                return ""
            for taken in orders.take:
                seats[taken.name] = 0
                places.taken()
            visits.say(*(Seated(taken.name, 0, _now_ms()) for taken in orders.take))
            if not seats:
                continue
            time.sleep(self.step_s)
            places.trained(len(seats))
            for name in list(seats):
                seats[name] += 1
                done, rest = divmod(seats[name], self.steps)
                if rest == 0:
                    visits.say(Reported(name, _report(name, done - 1, self.evaluations)))
                    if done == self.evaluations:
                        del seats[name]
                        places.left()


def _report(name: SeatName, index: int, evaluations: int) -> Report:
    # Any values do, as long as ASHA has something to tell apart.
    objective = (name.number * 7919 % 101) / 101 + index / 10
    return Report(
        index=index,
        step=index + 1,
        steps=evaluations,
        epoch=index + 1.0,
        epochs=evaluations,
        objective=objective,
        best=True,
        final=index + 1 == evaluations,
        metrics=dict.fromkeys(METRICS, objective),
        at_ms=_now_ms(),
    )


def _now_ms() -> int:
    return int(time.time() * 1000)


# -- one run ----------------------------------------------------------------------------------------------------------


@dataclass
class TimedDriver(Driver):
    """The driver, with a clock on its study and nothing registered."""

    began: float = 0.0
    seconds: float = 0.0

    def _follow(self, *, wait_s: float) -> None:
        super()._follow(wait_s=wait_s)
        if len(list(self.ledger.running())) >= self.plan.spec.resources.seats + hosting.AHEAD:
            (self.folder.root / JOINED).touch()

    def _study_prepared(self, study: Study, ref: ray.ObjectRef[Any]) -> None:
        self.began = time.monotonic()
        super()._study_prepared(study, ref)

    def _finish_study(self, study: Study, ref: ray.ObjectRef[Any]) -> None:
        self._follow(wait_s=0.0)
        self.seconds = time.monotonic() - self.began
        ray.get(ref)
        self.ledger.update_study(study.name, status="finished")


class Processors:
    """Seconds of CPU by kind of process, of this process and all beneath it."""

    def __init__(self) -> None:
        self._seconds: dict[int, tuple[str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Processors:
        times = psutil.Process().cpu_times()
        self._before = times.user + times.system
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def by_kind(self) -> dict[str, float]:
        kinds: defaultdict[str, float] = defaultdict(float)
        for kind, seconds in list(self._seconds.values()):
            kinds[kind] += seconds
        return {kind: round(seconds, 2) for kind, seconds in sorted(kinds.items(), key=lambda item: -item[1])}

    def seats(self) -> int:
        """Processes that were a seat's."""
        return sum(kind == "seats" for kind, _ in self._seconds.values())

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            here = psutil.Process()
            for process in [here, *here.children(recursive=True)]:
                try:
                    kind, times = _kind(process, here), process.cpu_times()
                except psutil.Error:
                    continue  # it has ended since
                before = self._seconds.get(process.pid, (kind, 0.0))[0]
                # A process that is idle again loses the name of what it did.
                kind = before if kind == "Ray's own" else kind
                before_s = self._before if process == here else 0.0
                self._seconds[process.pid] = (kind, times.user + times.system - before_s)


def _kind(process: psutil.Process, here: psutil.Process) -> str:
    if process == here:
        return "driver"
    title = " ".join(process.cmdline()[:1])
    for mark, kind in (("Seat", "seats"), ("Desk", "desk"), ("run_study", "study"), ("StandIn", "stand-in")):
        if title.startswith("ray::") and mark in title:
            return kind
    return "Ray's own"


@dataclass(frozen=True)
class Once:
    """One run."""

    seconds_a_trial: float
    study_s: float
    lag_s: float
    """MLflow's, behind the end of the study."""
    pruned: int
    seat_processes: int
    cpu_s: dict[str, float]
    refills: Refills
    reports: int
    """Evaluations that Tune heard of."""


def once(options: argparse.Namespace, home: Home) -> Once:
    plan = compile_plan(parse_spec(_spec(options), file="control_plane.yaml"))
    folder = RunFolder(home.runs / plan.run_id)
    stand_in: Any = ray.remote(num_cpus=0)(StandIn)
    write_whole(folder.plan_file, plan.model_dump_json().encode())
    with (
        patch.object(
            hosting, "pack_hosts", lambda _: stand_in.remote(options.step_s, options.steps, options.evaluations)
        ),
        patch.object(hosting, "AHEAD", options.ahead),
        Processors() as processors,
    ):
        timed = _open(folder, home, plan)
        code = timed.run()
        lag_s = time.monotonic() - timed.began - timed.seconds
    state = folder.state()
    assert code == 0, state.error
    trials = state.studies[0].trials
    assert len(trials) == options.trials, f"{len(trials)} of {options.trials} trials"
    assert {trial.status for trial in trials} <= {"finished", "pruned"}
    return Once(
        seconds_a_trial=timed.seconds / options.trials,
        study_s=timed.seconds,
        lag_s=lag_s,
        pruned=sum(trial.status == "pruned" for trial in trials),
        seat_processes=processors.seats(),
        cpu_s=processors.by_kind(),
        refills=Refills(**json.loads((folder.root / PLACES).read_bytes())),
        reports=sum(trial.step for trial in trials),
    )


def _open(folder: RunFolder, home: Home, plan: Plan) -> TimedDriver:
    profile = load_profile(None, home)
    real = open_driver(folder, home, profile)
    return TimedDriver(folder, plan, home, profile, real.ledger, real.recorder)


def _spec(options: argparse.Namespace) -> str:
    return json.dumps(
        {
            "apiVersion": "tunery/v1",
            "kind": "Sweep",
            "name": "control-plane",
            "model": {"id": "embedded:minilm"},
            "tasks": ["acceptability"],
            "data": {"source": "embedded", "max_train": 64, "max_eval": 32},
            "tuner": {"method": "lora", "rank": 8},
            "train": {"epochs": options.evaluations},
            "search": {
                "trials": options.trials,
                "pruner": {"name": "asha", "reduction": 3, "grace_epochs": 1},
                "space": {
                    "train.learning_rate": {"log_uniform": [1e-5, 1e-2]},
                    "train.weight_decay": {"uniform": [0.0, 0.1]},
                    "tuner.rank": {"choice": [4, 8, 16]},
                    "tuner.dropout": {"uniform": [0.0, 0.2]},
                },
            },
            "resources": {"packs": 1, "seats": options.seats},
        }
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seats", type=int, default=8, help="places of the one pack")
    parser.add_argument("--evaluations", type=int, default=3, help="of a trial that is not pruned")
    parser.add_argument("--step-s", type=float, default=0.05, help="seconds in place of a step")
    parser.add_argument("--steps", type=int, default=1, help="from one evaluation of a seat to the next")
    parser.add_argument("--ahead", type=int, default=hosting.AHEAD, help="trials begun beyond the places")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="control_plane", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    where = machine()
    print(where)
    runs: list[Once] = []
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as root:
            os.environ["TUNERY_HOME"] = root
            runs.append(once(options, Home(Path(root))))
        print(f"repeat {repeat + 1}: {runs[-1].seconds_a_trial:.3f} s a trial, {runs[-1].refills.told()}")
    print(report(runs, trivial=options.steps == 1))
    path = save(options.name, {"machine": where, "options": vars(options), "results": [asdict(run) for run in runs]})
    print(f"written: {path}")


def report(runs: Sequence[Once], *, trivial: bool) -> str:
    """The table of the median run, and the claim, which is about trivial trials."""
    middle = sorted(runs, key=lambda run: run.seconds_a_trial)[len(runs) // 2]
    trials = round(middle.study_s / middle.seconds_a_trial)
    rows = [
        ["wall time of the study", f"{middle.seconds_a_trial:.3f}"],
        *([f"CPU time, {kind}", f"{seconds / trials:.3f}"] for kind, seconds in middle.cpu_s.items()),
    ]
    holds = "holds" if middle.seconds_a_trial < CLAIM_S else "FAILS"
    claim = [f"{middle.seconds_a_trial:.3f} s a trial  (claim: {CLAIM_S})  {holds}"] if trivial else []
    return "\n".join(
        [
            table(["median run", "s a trial"], rows),
            *claim,
            f"{middle.seat_processes} seats' processes for {trials} trials, {middle.pruned} pruned; "
            f"MLflow had everything {middle.lag_s:.1f} s after the study's end",
            middle.refills.told(),
        ]
    )


if __name__ == "__main__":
    main()
