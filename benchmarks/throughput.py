"""Throughput against seats: what the engine reaches of a bare GEMM of the same shapes, in turn in one process.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --shapes minilm --lengths cola --methods lora --threads 1

Printed for each model, method and distribution of lengths, for 1 to 32 seats: examples/s and tokens/s of all seats,
achieved GF/s, the roof's GF/s and the share, and the same for torch's own products, which in float32 on a CPU are not
the fastest. benchmarks/steps/flops.py says what is counted, and benchmarks/steps/roof.py what the roof is. A 4-bit base
is dequantised in every step and the roof's is not, so the share of QLoRA pays for that. Weights and tokens are random;
lengths are drawn from the distributions in benchmarks/steps/lengths.py (CoLA's and MNLI's quantiles). Target: at least
75 % in float32 on a CPU. `--parts` adds what the time of a step goes to, by torch's profiler, which slows it a little.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.steps import parts, probe
from benchmarks.steps.lengths import LENGTHS
from benchmarks.steps.options import against_seats
from benchmarks.steps.parts import Part
from benchmarks.steps.probe import Speed
from benchmarks.steps.shapes import SHAPES, save, tiny
from tuners.engine import Base, Pack, keep_freed_memory, native_dtype
from tuners.lora.config import Config as LoraConfig

TARGET = 0.75
"""Least share of the roof, in float32 on a CPU."""
HEADER = ["seats", "tokens a step", "examples/s", "tokens/s", "GF/s", "roof, GF/s", "share", "torch's, GF/s", "share"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = _parser().parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    report.quiet()
    device = torch.device(chosen.device)
    dtype = native_dtype(device) if chosen.dtype == "auto" else chosen.dtype
    content: dict[str, Any] = {
        "machine": report.machine(chosen.device),
        "options": report.options(vars(chosen)),
        "cells": [],
    }
    print(f"{report.where(content['machine'])}; {dtype}, {chosen.threads} threads")
    name = chosen.name or f"throughput-{device.type}"
    methods = [method for method in chosen.methods if _possible(method)]
    for shape in chosen.shapes:
        config = SHAPES[shape].config()
        with tempfile.TemporaryDirectory() as folder:
            save(tiny(config) if chosen.tiny else config, Path(folder), dtype=getattr(torch, dtype), device=device)
            for method in methods:
                tuner = probe.tuner(method, rank=chosen.rank, targets=SHAPES[shape].targets)
                base = Base.load(probe.base_spec(folder, tuner, dtype=dtype), device)
                for lengths in chosen.lengths:
                    found = _against_seats(chosen, base, tuner, lengths)
                    speeds = [speed for speed, _ in found]
                    labels = {"shape": shape, "method": method, "lengths": lengths}
                    cells = [{**labels, **_plain(speed), "parts": [asdict(part) for part in of]} for speed, of in found]
                    content["cells"] += cells
                    print(f"\n{_heading(shape, method, lengths, chosen)}\n\n{table(speeds)}", flush=True)
                    for speed, of in found:
                        if of:
                            print(f"\n{speed.seats} seats\n\n{parts.table(of)}", flush=True)
                    if dtype == "float32" and device.type == "cpu" and not chosen.tiny:
                        print(f"\n{target(speeds)}", flush=True)
                    report.save(name, content)
    print(f"\nwritten: {report.save(name, content)}")


def _parser() -> argparse.ArgumentParser:
    parser = against_seats(__doc__, dtypes=("float32", "bfloat16", "auto"))
    parser.add_argument("--seconds", type=float, default=6.0, help="of timed steps a cell, about (default: 6)")
    parser.add_argument("--parts", action="store_true", help="what the time of a step goes to, too")
    return parser


def _possible(method: str) -> bool:
    if method != "lora" and importlib.util.find_spec("bitsandbytes") is None:
        report.progress(f"{method} is left out: bitsandbytes is not installed")
        return False
    return True


def _against_seats(
    chosen: argparse.Namespace, base: Base, tuner: LoraConfig, lengths: str
) -> list[tuple[Speed, tuple[Part, ...]]]:
    found = []
    distribution = LENGTHS[lengths]
    for seats in chosen.seats:
        pack = Pack(base)
        sets = probe.fill(pack, seats, distribution, tuner, batch_size=distribution.batch)
        speed = probe.measure(pack, sets, tuner, batch_size=distribution.batch, seconds=chosen.seconds)
        report.progress(f"{tuner.method}, {lengths}, {seats} seats: {speed.share:.0%} of the roof")
        found.append((speed, parts.parts(pack) if chosen.parts else ()))
    return found


def _plain(speed: Speed) -> dict[str, Any]:
    return {**asdict(speed), "share": speed.share}


def _heading(shape: str, method: str, lengths: str, chosen: argparse.Namespace) -> str:
    what = "hardly any weights" if chosen.tiny else SHAPES[shape].what
    distribution = LENGTHS[lengths]
    return (
        f"{shape} ({what}), {method} of rank {chosen.rank}, lengths {distribution.what}, {distribution.batch} examples "
        f"a step and seat"
    )


def table(speeds: Sequence[Speed]) -> str:
    """A row for each number of seats."""
    rows = [
        [
            str(speed.seats),
            f"{speed.tokens_per_step:.0f}",
            f"{speed.examples_per_s:.1f}",
            f"{speed.tokens_per_s:.0f}",
            f"{speed.flops_per_s / 1e9:.0f}",
            f"{speed.roof_flops_per_s / 1e9:.0f}",
            f"{speed.share:.1%}",
            f"{speed.torch_flops_per_s / 1e9:.0f}",
            f"{speed.share_of_torch:.1%}",
        ]
        for speed in speeds
    ]
    return report.table(HEADER, rows)


def target(speeds: Sequence[Speed]) -> str:
    """What the target says of the best."""
    shares: list[tuple[str, Callable[[Speed], float]]] = [
        ("the roof", lambda speed: speed.share),
        ("torch's own products", lambda speed: speed.share_of_torch),
    ]
    said = []
    for what, share in shares:
        best = max(speeds, key=share)
        verdict = "holds" if share(best) >= TARGET else "FAILS"
        said.append(f"at most {share(best):.1%} of {what}, at {best.seats} seats (target: {TARGET:.0%})  {verdict}")
    return "\n".join(said)


if __name__ == "__main__":
    main()
