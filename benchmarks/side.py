"""Side tuning: what seats gain that share a base's forward, or find its states kept; beside LoRA.

    python -m benchmarks.side
    python -m benchmarks.side --shapes minilm --threads 1

All arms train the same drawn rows in turn, in one process:

  one-at-a-time  seats one after another, each in a pack of its own, as a trainer of one adapter does it
  shared         all seats in one pack, reading the same batches: the base runs once a batch
  kept           the same when the base's states have been kept: it does not run at all
  own-orders     as kept, and each seat reads the rows in an order of its own
  lora           LoRA with as many seats in one pack, whose backward goes through the base

Rates are of training steps, without the first ones; of `kept` and `own-orders` from the second epoch on. Targets on a
CPU, with 16 seats and over one at a time: 6 times shared, 10 times kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import report
from benchmarks.steps.lengths import LENGTHS, rows
from benchmarks.steps.options import against_seats
from benchmarks.steps.probe import step
from benchmarks.steps.shapes import SHAPES, save, tiny
from tuners.config import TrainConfig, TunerConfig
from tuners.engine import Base, BaseSpec, HeadSpec, Pack, SeatSpec, keep_freed_memory
from tuners.lora.config import Config as LoraConfig
from tuners.qst.config import Config as QstConfig

ROUNDS = 3
TARGETS = {"shared": 6.0, "kept": 10.0}
"""With 16 seats, times one at a time."""
ARMS = ("one-at-a-time", "shared", "kept", "own-orders", "lora")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = _parser().parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    report.quiet()
    content: dict[str, Any] = {
        "machine": report.machine(chosen.device),
        "options": report.options(vars(chosen)),
        "cells": [],
    }
    print(f"{report.where(content['machine'])}; {chosen.dtype}, {chosen.threads} threads")
    for shape in chosen.shapes:
        config = SHAPES[shape].config()
        with tempfile.TemporaryDirectory() as folder:
            save(
                tiny(config) if chosen.tiny else config,
                Path(folder),
                dtype=getattr(torch, chosen.dtype),
                device=torch.device(chosen.device),
            )
            for lengths in chosen.lengths:
                rates = _rates(chosen, folder, shape, lengths)
                content["cells"].append({"shape": shape, "lengths": lengths, "examples_per_s": rates})
                print(f"\n{shape}, {lengths}, batches of {chosen.batch_size}\n\n{table(rates)}\n\n{targets(rates)}")
                report.save(chosen.name or "side", content)
    print(f"\nwritten: {report.save(chosen.name or 'side', content)}")


def _parser() -> argparse.ArgumentParser:
    parser = against_seats(__doc__, dtypes=("float32", "bfloat16"))
    parser.set_defaults(shapes=["smollm2-6"], lengths=["cola"], seats=[1, 4, 16])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--reduction", type=int, default=16, help="of the side network's width (default: 16)")
    parser.add_argument("--rows", type=int, default=256, help="that are trained on, again and again (default: 256)")
    parser.add_argument("--four-bits", action="store_true", help="keep the base in NF4, as the method is meant to")
    parser.add_argument("--seconds", type=float, default=6.0, help="of timed steps a cell, about (default: 6)")
    return parser


Rates = Mapping[str, Mapping[int, float]]
"""Examples/s of all seats, by arm and number of seats."""


def _rates(chosen: argparse.Namespace, folder: str, shape: str, lengths: str) -> Rates:
    side = QstConfig(reduction=chosen.reduction, quantise=chosen.four_bits)
    adapter = LoraConfig(rank=chosen.rank, alpha=2.0 * chosen.rank, target_modules=SHAPES[shape].targets)
    drawn = rows(
        LENGTHS[lengths],
        chosen.rows,
        vocabulary=int(SHAPES[shape].config().vocab_size) if not chosen.tiny else 64,
        rng=np.random.default_rng(0),
    )

    def base(tuner: TunerConfig, kept_bytes: int = 0) -> Base:
        spec = BaseSpec(
            folder,
            quantisation=tuner.quantisation if chosen.four_bits else "none",
            dtype=chosen.dtype,
            beside=tuner.trains_beside,
            kept_bytes=kept_bytes,
        )
        return Base.load(spec, chosen.device)

    def pack(on: Base, tuner: TunerConfig, seats: int, *, own_orders: bool = False) -> Pack:
        made = Pack(on)
        for seat in range(seats):
            train = TrainConfig(
                learning_rate=1e-5,
                epochs=10_000,
                batch_size=chosen.batch_size,
                max_length=1024,
                seed=seat if own_orders else 0,
            )
            made.join(SeatSpec(f"seat-{seat}", tuner, train, HeadSpec("classification", ("0", "1")), drawn, {}))
        return made

    epoch = -(-chosen.rows // chosen.batch_size)
    plain, everything = base(side), base(side, 1 << 40)
    frozen = base(adapter)
    found: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    for seats in chosen.seats:
        arms: dict[str, Callable[[], Pack]] = {
            "one-at-a-time": lambda: pack(plain, side, 1),
            "shared": lambda seats=seats: pack(plain, side, seats),  # type: ignore[misc]
            "kept": lambda seats=seats: pack(everything, side, seats),  # type: ignore[misc]
            "own-orders": lambda seats=seats: pack(everything, side, seats, own_orders=True),  # type: ignore[misc]
            "lora": lambda seats=seats: pack(frozen, adapter, seats),  # type: ignore[misc]
        }
        measured: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for _ in range(ROUNDS):
            for arm, make in arms.items():
                report.progress(f"{shape}, {lengths}, {seats} seats: {arm}")
                measured[arm].append(_rate(make(), warm=epoch if arm in ("kept", "own-orders") else 2, chosen=chosen))
        for arm, rates in measured.items():
            found[arm][seats] = median(rates)
    return found


def _rate(pack: Pack, *, warm: int, chosen: argparse.Namespace) -> float:
    for _ in range(warm):
        step(pack)
    began, examples = time.perf_counter(), 0
    while time.perf_counter() - began < chosen.seconds / ROUNDS or not examples:
        examples += step(pack)[0]
        if pack.base.device.type == "cuda":
            torch.cuda.synchronize()
    return examples / (time.perf_counter() - began)


def table(rates: Rates) -> str:
    """Rates, and how many times one at a time and LoRA with as many seats."""
    lines = []
    for arm, by_seats in rates.items():
        for seats, rate in by_seats.items():
            alone, lora = rates["one-at-a-time"][seats], rates["lora"][seats]
            lines.append([arm, str(seats), f"{rate:.1f}", f"{rate / alone:.2f}", f"{rate / lora:.2f}"])
    return report.table(["arm", "seats", "examples/s", "times one at a time", "times lora"], lines)


def targets(rates: Rates) -> str:
    """Whether they hold."""
    said = []
    for arm, target in TARGETS.items():
        for seats, rate in rates[arm].items():
            if seats == 16:
                times = rate / rates["one-at-a-time"][seats]
                said.append(f"{arm}, 16 seats: {times:.2f} times (target: {target:g})  {_verdict(times >= target)}")
    return "\n".join(said)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


if __name__ == "__main__":
    main()
