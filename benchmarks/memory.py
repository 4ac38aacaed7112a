"""Memory against seats: the peak of a process that trains 1 to 32 seats on one base, a fresh process each.

    python -m benchmarks.memory
    python -m benchmarks.memory --methods full --optimizer adamw_8bit --lengths cola
    python -m benchmarks.memory --methods qst
    python -m benchmarks.memory --device cuda --shapes qwen2.5-1.5b --dtype bfloat16

Printed: the process's resident memory with the base loaded, its peak after a few steps, on a GPU the peak that torch
allocated, what each further seat adds, and beside the peak what the engine foresees (`Pack.footprint`). Weights and
tokens are random; lengths are drawn from the distributions in benchmarks/steps/lengths.py. No seat is evaluated. `full`
has a pack to itself and is measured with one seat.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks import report
from benchmarks.steps.lengths import LENGTHS
from benchmarks.steps.methods import METHODS
from benchmarks.steps.options import against_seats
from benchmarks.steps.shapes import SHAPES, save, tiny
from tuners.config import Optimizer, TunerConfig

STEPS = 6
"""Of every seat: the allocator has reached its peak by then."""
HEADER = [
    "seats",
    "base loaded, MiB",
    "peak, MiB",
    "on the device, MiB",
    "each further seat, MiB",
    "foreseen, MiB",
    "foreseen / measured",
    "tokens a forward",
]


@dataclass(frozen=True)
class Job:
    """One process."""

    shape: str
    folder: str
    """Of the checkpoint."""
    method: str
    lengths: str
    seats: int
    rank: int
    threads: int
    dtype: Literal["float32", "bfloat16"]
    device: str
    optimizer: Optimizer
    answers: bool


@dataclass(frozen=True)
class Memory:
    """What one process took, in MiB."""

    seats: int
    base_mib: float
    """Resident before the first seat joined."""
    peak_mib: float
    """Largest resident set."""
    device_peak_mib: float | None
    """Allocated by torch on a GPU."""
    foreseen_mib: float
    """What the engine says before the first step: of the device where there is one, else of the process."""
    tokens_per_forward: int
    """At most."""

    @property
    def measured_mib(self) -> float:
        """What `foreseen_mib` foresees."""
        return self.peak_mib if self.device_peak_mib is None else self.device_peak_mib


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = _parser().parse_args(arguments)
    content: dict[str, Any] = {
        "machine": report.machine(chosen.device),
        "options": report.options(vars(chosen)),
        "cells": [],
    }
    print(f"{report.where(content['machine'])}; {chosen.dtype}")
    name = chosen.name or f"memory-{chosen.device.partition(':')[0]}"
    for shape in chosen.shapes:
        with tempfile.TemporaryDirectory() as folder:
            _alone(_save, shape, folder, chosen.dtype, chosen.tiny)
            for method in chosen.methods:
                for lengths in chosen.lengths:
                    seats = [1] if method == "full" else chosen.seats
                    rows = [_alone(_measure, _job(chosen, shape, folder, method, lengths, s)) for s in seats]
                    labels = {"shape": shape, "method": method, "lengths": lengths}
                    content["cells"] += [{**labels, **asdict(row)} for row in rows]
                    what = f"{LENGTHS[lengths].batch} examples a step and seat, lengths {LENGTHS[lengths].what}"
                    print(f"\n{shape}, {_named(method, chosen)}, {what}\n\n{table(rows)}", flush=True)
                    report.save(name, content)
    print(f"\nwritten: {report.save(name, content)}")


def _parser() -> argparse.ArgumentParser:
    parser = against_seats(__doc__, dtypes=("float32", "bfloat16"), methods=(*METHODS, "full", "qst"))
    parser.add_argument("--answers", action="store_true", help="seats that generate: the second half of a row is one")
    parser.add_argument("--optimizer", choices=get_args(Optimizer), default="adamw")
    return parser


def _named(method: str, chosen: argparse.Namespace) -> str:
    return f"{method}{f' of rank {chosen.rank}' if 'lora' in method else ''} with {chosen.optimizer}"


def _job(chosen: argparse.Namespace, shape: str, folder: str, method: str, lengths: str, seats: int) -> Job:
    report.progress(f"{shape}, {method}, {lengths}: {seats} seats")
    return Job(
        shape,
        folder,
        method,
        lengths,
        seats,
        chosen.rank,
        chosen.threads,
        chosen.dtype,
        chosen.device,
        chosen.optimizer,
        chosen.answers,
    )


def _alone(work: Any, *arguments: Any) -> Any:
    """Call in a process of its own, so that nothing of it stays."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _save(shape: str, folder: str, dtype: str, small: bool) -> None:
    import torch

    report.quiet()
    config = SHAPES[shape].config()
    save(tiny(config) if small else config, Path(folder), dtype=getattr(torch, dtype), device=torch.device("cpu"))


def _measure(job: Job) -> Memory:
    import torch

    from benchmarks.steps import probe
    from tuners.engine import Base, Pack, keep_freed_memory, peak_bytes
    from tuners.full.config import Config as FullConfig
    from tuners.qst.config import Config as QstConfig

    report.quiet()
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    tuner: TunerConfig
    match job.method:
        case "full":
            tuner = FullConfig()
        case "qst":
            tuner = QstConfig(kept_mib=0)  # what is kept has a bound of its own
        case _:
            tuner = probe.tuner(job.method, rank=job.rank, targets=SHAPES[job.shape].targets)
    base = Base.load(probe.base_spec(job.folder, tuner, dtype=job.dtype, language=job.answers), job.device)
    base_mib = resident_mib()
    pack = Pack(base)
    lengths = LENGTHS[job.lengths]
    options: dict[str, Any] = {"optimizer": job.optimizer, "answers": job.answers}
    probe.fill(pack, job.seats, lengths, tuner, batch_size=lengths.batch, **options)
    foreseen_mib = pack.footprint.peak / 2**20
    for _ in range(STEPS):
        probe.step(pack)
    on_device = torch.cuda.max_memory_allocated(base.device) / 2**20 if base.device.type == "cuda" else None
    peak_mib = peak_bytes(torch.device("cpu")) / 2**20
    return Memory(job.seats, base_mib, peak_mib, on_device, foreseen_mib, pack.max_tokens)


def resident_mib() -> float:
    """What this process holds now; nan where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


def table(rows: Sequence[Memory]) -> str:
    """A row for each number of seats; what a seat adds is counted from the row with the fewest."""
    first = min(rows, key=lambda row: row.seats)
    cells = [
        [
            str(row.seats),
            f"{row.base_mib:.0f}",
            f"{row.peak_mib:.0f}",
            "" if row.device_peak_mib is None else f"{row.device_peak_mib:.0f}",
            f"{further(row, first):.1f}" if row.seats > first.seats else "",
            f"{row.foreseen_mib:.0f}",
            f"{row.foreseen_mib / row.measured_mib:.2f}",
            str(row.tokens_per_forward),
        ]
        for row in rows
    ]
    return report.table(HEADER, cells)


def further(row: Memory, first: Memory) -> float:
    """MiB that each seat beyond the first row's adds: on the device where there is one."""
    return (row.measured_mib - first.measured_mib) / (row.seats - first.seats)


if __name__ == "__main__":
    main()
