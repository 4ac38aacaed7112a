"""Record learning curves of adapters: every configuration of a grid is trained once by the engine, in packs.

    python -m benchmarks.record_curves --task sst2 --data DIR --max-train 512 --max-eval 872 --epochs 9

Writes benchmarks/curves/TASK.csv, which benchmarks.search replays. A grid that was begun is gone on with.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import learning_curves
from benchmarks.learning_curves import Axes, Cell, Curve
from benchmarks.trials import options
from benchmarks.trials.workload import Workload

if TYPE_CHECKING:
    from tuners.engine import SeatSpec

AXES: Axes = {
    "train.learning_rate": tuple(float(f"{1e-5 * 10 ** (step * 0.32):.3g}") for step in range(12)),
    "tuner.rank": (2, 8, 32),
    "train.batch_size": (8, 32, 128),
}
SEATS = 12
"""Configurations in a pack: of one batch size, so that their steps are as many."""


@dataclass(frozen=True)
class Job:
    """One pack."""

    workload: Workload
    cells: tuple[Cell, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options.parser(str(__doc__).partition("\n")[0])
    parser.add_argument("--task", default="sst2")
    parser.set_defaults(max_train=512, max_eval=872, epochs=9, schedule="linear", dropout=0.0)
    chosen = parser.parse_args(arguments)
    work = options.workload(chosen, chosen.task)
    waiting = learning_curves.missing(chosen.task, AXES)
    jobs = [Job(work, cells) for cells in _packs(waiting)]
    print(f"{len(waiting)} configurations to record", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # before the children import torch
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    with ProcessPoolExecutor(chosen.cores, mp_context=context) as pool:
        for done, future in enumerate(as_completed([pool.submit(record, job) for job in jobs]), start=1):
            learning_curves.append(chosen.task, AXES, future.result())
            print(f"{done} of {len(jobs)} packs, {time.monotonic() - began:.0f} s", flush=True)


def _packs(cells: Sequence[Cell]) -> Iterator[tuple[Cell, ...]]:
    """Packs of one batch size."""
    place = list(AXES).index("train.batch_size")
    for _, alike in itertools.groupby(sorted(cells, key=lambda cell: cell[place]), key=lambda cell: cell[place]):
        group = list(alike)
        yield from (tuple(group[start : start + SEATS]) for start in range(0, len(group), SEATS))


def record(job: Job) -> list[Curve]:
    """Train the configurations side by side in one pack."""
    import torch

    from benchmarks.trials.ours import score
    from tuners.engine import Base, BaseSpec, Pack, keep_freed_memory, native_dtype
    from tunery import tasks
    from tunery.tasks.metrics import objective

    task, work = tasks.get(job.workload.task), job.workload
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    spec = BaseSpec(work.model, quantisation=work.tuner.quantisation, dtype=native_dtype(device))
    pack = Pack(Base.load(spec, device))
    for cell in job.cells:
        pack.join(_seat(cell, work))
    names = {_name(cell): cell for cell in job.cells}
    scores: dict[str, list[float]] = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    while pack.seats:
        began = time.perf_counter()
        reports = pack.step()
        took, examples = time.perf_counter() - began, sum(report.examples for report in reports.values())
        for name, report in reports.items():
            seconds[name] += took * report.examples / examples
        diverged = [name for name, report in reports.items() if report.diverged]
        due = [name for name in pack.seats if name not in diverged and pack.progress(name).evaluation_due]
        for name, splits in pack.evaluate(due).items() if due else ():
            scores[name].append(objective(task, score(work.task, splits)))
        for name in [name for name in pack.seats if name in diverged or pack.progress(name).finished]:
            pack.leave(name)
    return [Curve(cell, _padded(scores[name], work.train.epochs), seconds[name]) for name, cell in names.items()]


def _name(cell: Cell) -> str:
    return " ".join(f"{value:g}" for value in cell)


def _seat(cell: Cell, work: Workload) -> SeatSpec:
    from tuners.engine import HeadSpec, SeatSpec
    from tunery import tasks

    values = dict(zip(AXES, cell, strict=True))
    train = {"learning_rate": values["train.learning_rate"], "batch_size": int(values["train.batch_size"])}
    task = tasks.get(work.task)
    return SeatSpec(
        name=_name(cell),
        tuner=work.tuner.model_copy(update={"rank": int(values["tuner.rank"])}),
        train=work.train.model_copy(update=train),
        head=HeadSpec(task.kind, task.labels),
        train_set=work.train_set,
        eval_sets=work.eval_sets,
    )


def _padded(scores: Sequence[float], epochs: int) -> tuple[float, ...]:
    return (*scores, *[math.nan] * (epochs - len(scores)))


if __name__ == "__main__":
    main()
