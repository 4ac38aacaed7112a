"""The Ray Train loop of a pack: runs the engine for whoever the desk has seated.

Between two steps of the engine it visits the desk. At a seat's evaluations it scores, writes a checkpoint (with the
PEFT adapter when it is the best so far) and reports, in this order: a report that was heard is never lost. Between
evaluations it writes one every `train.checkpoint.every_steps`.

Of several workers that hold the base together, rank 0 speaks to the desk and writes the files; what the desk has said
it passes on, so that all do the same between the same two steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import ray.train
import ray.train.torch
import torch

from storage.checkpoints import CheckpointStore
from storage.errors import StorageError
from storage.fetching import base_folder
from storage.models import is_embedded, on_a_hub
from storage.near import NearCopy, near
from storage.tokens import TokenTable
from tuners.engine import (
    Base,
    BaseSpec,
    Group,
    HeadSpec,
    Pack,
    SeatSpec,
    SeatState,
    StepReport,
    Workers,
    forget_peak,
    keep_freed_memory,
    native_dtype,
    peak_bytes,
)
from tuners.errors import NoRoomError, TunerError
from tunery.begin import Origin
from tunery.cluster import scoring, shortage
from tunery.cluster.beginning import Beginning, beginning, origin
from tunery.cluster.messages import (
    Declined,
    Failed,
    Orders,
    PackMessage,
    Progressed,
    Report,
    Reported,
    Seated,
    SeatName,
    SeatOrder,
)
from tunery.cluster.orders import PackOrder
from tunery.cluster.reports import Counted, write_reports
from tunery.cluster.staging import staged
from tunery.cluster.visits import Visits
from tunery.plan import TrialConfig
from tunery.runs import COUNTED, OF, REPORTS, SEAT_STATE, RunFolder

PROGRESS_INTERVAL_S = 1.0
DEVICE_SHARE = 0.92
"""Of a device's memory, what a pack may allocate; the rest is its context's."""


@dataclass
class _Seat:
    """The host's side of a seat: what the engine does not know."""

    order: SeatOrder
    trial: TrialConfig
    store: CheckpointStore
    origin: Origin
    log: Path
    reports: list[Report]
    counted: Counted = field(default_factory=Counted)
    progressed_at: float = 0.0


def host_pack(config: Mapping[str, Any]) -> None:
    """The `train_loop_per_worker` of a pack's TorchTrainer."""
    order: PackOrder = config["order"]
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    _Host(order).run()


@dataclass
class _Host:
    order: PackOrder
    seats: dict[SeatName, _Seat] = field(default_factory=dict)
    visits: Visits | None = None
    """Of the worker that speaks to the desk."""
    copy: NearCopy | None = None
    """Of the base, on the node's own disk."""

    def run(self) -> None:
        """Train until the desk closes."""
        order, desk = self.order, self.order.desk
        self.device = ray.train.torch.get_device()
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.group = Workers() if torch.distributed.is_initialized() else Group()
        self.speaks = self.group.rank == 0
        if not self.group.share(desk.wants(order.base_key) if self.speaks else False):
            return  # before anything is loaded
        # Nodes may differ; the shares of one base may not.
        natives = set(self.group.gather(native_dtype(self.device)))
        model = order.model
        dtype = model.dtype if model.dtype != "auto" else natives.pop() if len(natives) == 1 else "float32"
        spec = BaseSpec(
            self._folder(),
            model.revision,
            order.quantisation,
            order.dequantised_once,
            order.trained,
            order.language,
            order.beside,
            order.kept_bytes,
            dtype,
            published=model.id if on_a_hub(model.id) else None,
        )
        self.processes = self.group.gather(os.getpid())
        base = Base.load(spec, self.device, group=self.group, checkpointing=order.gradient_checkpointing)
        self.pack = Pack(base, memory=self._memory(), packs=order.packs)
        for _ in range(order.halvings):
            self.pack.halve_forwards()
        if self.speaks:
            incarnation = desk.open_pack(order.pack, base=order.base_key, capacity=order.capacity)
            self.visits = Visits(desk, order.pack, incarnation)
        while True:
            orders = self.group.share(self.visits.orders(training=bool(self.seats)) if self.visits else Orders())
            for name in orders.drop:
                self._drop(name)
            if orders.close:
                self._go_home()
                return
            for seat_order in orders.take:
                self._take(seat_order)
            if self.seats:
                self._step()

    def _folder(self) -> str:
        """What the base is loaded from."""
        model, weights = self.order.model, self.order.weights
        folder = base_folder(model.id, model.revision, model.source)
        if weights is None or is_embedded(model.id):  # that one lies on the node's disk already
            return folder
        self.copy = near(Path(folder), weights)  # held for as long as the pack lives
        return str(self.copy.folder)

    def _say(self, *messages: PackMessage) -> None:
        if self.visits is not None:
            self.visits.say(*messages)

    # -- joining and leaving -----------------------------------------------------------------------------------

    def _take(self, order: SeatOrder) -> None:
        run = RunFolder(self.order.run, store=self.order.store)
        name = order.name
        trial = TrialConfig.model_validate_json(order.trial)
        seat = _Seat(
            order=order,
            trial=trial,
            store=CheckpointStore(run.checkpoints(name.study, name.number), keep=trial.train.checkpoint.keep),
            origin=origin(order, trial, self.order, self.order.run),
            log=run.trial_log(name.study, name.number),
            reports=[],
        )
        # What rank 0 has read all go on from; the others need not see the same files at the same time.
        begun = Beginning()
        if self.speaks:
            begun = beginning(seat.store, run, seat.origin, begin=self.order.begin)
            for line in begun.told:
                self._log(seat, line)
        begun = self.group.share(begun)
        seat.reports, seat.counted = begun.reports, begun.counted
        # What a worker reads may be wrong on that worker alone; a pack takes or refuses a seat on all of them.
        spec, problem = self._read(seat)
        problems = [found for found in self.group.gather(begun.problem or problem) if found]
        if spec is None or problems:
            self._fail(seat, problems[0])
            return
        if not self.seats:
            forget_peak(self.device)  # of trials that have left
        try:
            self.pack.join(spec, SeatState.from_bytes(begun.state) if begun.state is not None else None)
        except NoRoomError as error:
            if self.seats:
                self._log(seat, f"waits: {error}")
                self._say(Declined(name, str(error)))
            else:
                self._fail(seat, str(error))
            return
        except TunerError as error:
            self._fail(seat, str(error))
            return
        self.seats[name] = seat
        progress = self.pack.progress(str(name))
        processes = f"process{'es' if len(self.processes) > 1 else ''} {', '.join(map(str, self.processes))}"
        where = f"{self.order.pack} ({processes}) at step {progress.step} of {progress.steps}"
        self._log(seat, f"seated in {where}: {dict(order.draw)}")
        self._log(
            seat, f"{self.order.pack} is foreseen to take {self.pack.footprint.peak:,} bytes, of {self._memory():,}"
        )
        if self.speaks and (need := self.pack.need):
            shortage.note(self.order, need, self._memory())
        self._say(Seated(name, progress.step, _now_ms()), *(Reported(name, report) for report in seat.reports))
        if progress.finished and not seat.reports:
            done = f"checkpoint {self.order.begin} has made all {progress.steps} steps of this configuration"
            self._fail(seat, f"{done}: nothing is left to train; with more epochs a trial begins with its weights")
        elif progress.finished:
            self._drop(name)  # it had finished, and only its end was not heard

    def _memory(self) -> int:
        """Bytes that this worker may take: of its device, or its part of the machine's as far as that is free."""
        if self.device.type == "cuda":
            return int(DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[1])
        free = psutil.virtual_memory().available + psutil.Process().memory_info().rss
        return min(self.order.memory, free)

    def _read(self, seat: _Seat) -> tuple[SeatSpec | None, str]:
        """The seat with its data, or what is wrong with it."""
        try:
            return self._spec(seat), ""
        except (TunerError, StorageError) as error:
            return None, str(error)

    def _spec(self, seat: _Seat) -> SeatSpec:
        data = seat.order.data
        task = data.task
        return SeatSpec(
            name=str(seat.order.name),
            tuner=seat.trial.tuner,
            train=seat.trial.train,
            head=HeadSpec(task.kind, task.labels, data.stop),
            train_set=TokenTable(data.train),
            eval_sets={split: TokenTable(path) for split, path in data.evals.items()},
        )

    def _drop(self, name: SeatName) -> None:
        if self.seats.pop(name, None) is not None:
            self.pack.leave(str(name))

    def _fail(self, seat: _Seat, reason: str) -> None:
        self._log(seat, f"failed: {reason}")
        self._say(Failed(seat.order.name, reason, _now_ms()))
        self._drop(seat.order.name)

    def _go_home(self) -> None:
        for seat in self.seats.values() if self.speaks else ():
            step = self.pack.progress(str(seat.order.name)).step
            self._checkpoint(seat, step, best=False)
            self._log(seat, f"asked to stop: checkpoint at step {step}")

    # -- training ----------------------------------------------------------------------------------------------

    def _step(self) -> None:
        began, bound = time.monotonic(), self.pack.max_tokens
        outcomes = self.pack.step()
        seconds = time.monotonic() - began
        if self.pack.max_tokens < bound:
            for seat in self.seats.values():
                self._log(seat, f"out of memory: forwards have at most {self.pack.max_tokens} tokens from now on")
        by_text = {str(name): seat for name, seat in self.seats.items()}
        due: list[_Seat] = []
        for text, outcome in outcomes.items():
            seat = by_text[text]
            if outcome.diverged:
                self._fail(seat, f"diverged at step {self.pack.progress(text).step}: {outcome.diverged}")
                continue
            self._count(seat, outcome, seconds)
            progress, every = self.pack.progress(text), seat.trial.train.checkpoint.every_steps
            if progress.evaluation_due:
                due.append(seat)
            elif every and progress.step % every == 0 and self.speaks:
                self._checkpoint(seat, progress.step, best=False)
                self._log(seat, f"checkpoint at step {progress.step} of {progress.steps}")
        if due:
            self._evaluate(due)

    def _count(self, seat: _Seat, outcome: StepReport, seconds: float) -> None:
        seat.counted.add(loss=outcome.loss, examples=outcome.examples, tokens=outcome.tokens, seconds=seconds)
        now = time.monotonic()
        if now - seat.progressed_at > PROGRESS_INTERVAL_S:
            seat.progressed_at = now
            progress = self.pack.progress(str(seat.order.name))
            rates = seat.counted.examples_per_s, seat.counted.tokens_per_s
            self._say(Progressed(seat.order.name, progress.step, progress.steps, progress.epoch, *rates))

    def _evaluate(self, due: list[_Seat]) -> None:
        began = time.perf_counter()
        results = self.pack.evaluate([str(seat.order.name) for seat in due])
        seconds = time.perf_counter() - began
        peak = max(self.group.gather(peak_bytes(self.device)))
        for seat in due:
            name = seat.order.name
            counted, seat.counted = seat.counted, Counted()
            progress = self.pack.progress(str(name))
            if self.speaks:
                epochs = seat.trial.train.epochs
                found = scoring.Evaluated(results[str(name)], progress, epochs, counted, peak, seconds)
                self._bring(seat, scoring.report(seat.order.data, seat.reports, found))
            if progress.finished:
                self._drop(name)

    def _bring(self, seat: _Seat, report: Report) -> None:
        """Write, then say."""
        seat.reports.append(report)
        self._checkpoint(seat, report.step, best=report.best)
        self._log(seat, scoring.told(report))
        self._say(Reported(seat.order.name, report))

    def _checkpoint(self, seat: _Seat, step: int, *, best: bool) -> None:
        name = str(seat.order.name)
        small = {
            REPORTS: write_reports(seat.reports),
            COUNTED: seat.counted.to_bytes(),
            OF: seat.origin.to_bytes(),
        }
        scores = seat.reports[-1].metrics if seat.reports else {}
        with staged(seat.log) as folder:
            self.pack.save_state(name, folder / SEAT_STATE)
            if best:
                self.pack.export(name, folder)
            seat.store.save(step, small | {file.name: file for file in folder.iterdir()}, metrics=scores, best=best)

    def _log(self, seat: _Seat, line: str) -> None:
        if not self.speaks:
            return
        seat.log.parent.mkdir(parents=True, exist_ok=True)
        with seat.log.open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")


def _now_ms() -> int:
    return int(time.time() * 1000)
