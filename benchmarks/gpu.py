"""The engine on a GPU beside HF Trainer + PEFT + bitsandbytes: examples/s at 1, 4 and 16 seats, LoRA and QLoRA.

    PYTHONPATH=. python -m benchmarks.gpu
    PYTHONPATH=. python -m benchmarks.gpu --shapes qwen2.5-1.5b --methods lora --lengths cola
    PYTHONPATH=. python -m benchmarks.gpu --device cpu --tiny      # only to see the code run

Needs Python 3.11, torch, transformers and peft, nothing else of this project's requirements; where bitsandbytes is not
installed the QLoRA arms say so and the rest runs. No weights and no data are fetched: the models have random weights in
the shapes of Qwen2.5-1.5B and Llama-3.2-3B, and the lengths are drawn from CoLA's and MNLI's quantiles and 1024.

Arms, each training for about --seconds after untimed steps:
  hf-padded    HF Trainer + PEFT, one trial, every input padded (to 128, or 1024 for the 1k lengths), eager mode
  hf-grouped   the same, in batches of similar lengths
  ours-1/4/16  the engine with so many seats in one pack
A rate is that of all seats together: the rivals train one trial at a time, so ratios of rates are ratios of sweeps,
start-up left out. The share is of a bare GEMM's rate in the same shapes (benchmarks/steps/roof.py), in turn with it.
The JSON in benchmarks/results is written after every cell, so that a run that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks import report
from benchmarks.steps import bare
from benchmarks.steps.methods import METHODS

if TYPE_CHECKING:
    import torch

    from benchmarks.steps.lengths import Lengths

LEAST_RATIO = {"hf-grouped": 8.0, "hf-padded": 12.0}
"""Rival -> least ratio of the most seats' rate to its, on CoLA's lengths."""
LEAST_SHARE, FROM_TOKENS = 0.5, 3200
"""Least share of the roof, in steps of at least so many tokens."""
MOST_TOKENS = 65536
"""Of one forward of ours; memory bounds it further."""
RIVAL_ROWS = 2048
"""Of the rival's set: enough for batches of similar lengths."""
NO_BITSANDBYTES = "bitsandbytes is not installed"

Dtype = Literal["float32", "bfloat16"]
Cell = dict[str, Any]
"""One arm at one shape, method and distribution of lengths."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    chosen = _parser().parse_args(arguments)
    pydantic = bare.load_configurations()
    import torch

    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; `--device cpu --tiny` runs the same code on small models")
    from benchmarks.steps.shapes import SHAPES, save, tiny
    from tuners.engine import native_dtype

    report.quiet()
    dtype = native_dtype(device)
    content: dict[str, Any] = {
        "machine": report.machine(chosen.device),
        "options": report.options(vars(chosen)),
        "dtype": dtype,
        "pydantic": pydantic,
        "cells": [],
    }
    print(f"{report.where(content['machine'])}; {dtype}{'; hardly any weights' if chosen.tiny else ''}")
    name = chosen.name or f"gpu-{datetime.now(UTC):%Y%m%d-%H%M}"
    for shape in chosen.shapes:
        config = SHAPES[shape].config()
        with tempfile.TemporaryDirectory() as folder:
            report.progress(f"{shape}: drawing weights")
            save(tiny(config) if chosen.tiny else config, Path(folder), dtype=getattr(torch, dtype), device=device)
            for method in chosen.methods:
                for cell in _cells(chosen, folder, shape, method, dtype, device):
                    content["cells"].append(cell)
                    report.save(name, content)
                    report.progress(line(cell))
    print(f"\n{table(content['cells'])}\n")
    if not chosen.tiny:
        print("\n".join(targets(content["cells"])))
    print(f"written: {report.save(name, content)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["qwen2.5-1.5b", "llama-3.2-3b"], help="default: both")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--lengths", nargs="+", default=["cola", "mnli", "1k"], help="default: cola mnli 1k")
    parser.add_argument("--seats", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0, help="of timed steps an arm, about (default: 8)")
    parser.add_argument("--device", default="cuda", help="a torch device (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="hardly any weights: only to see the code run")
    parser.add_argument("--name", default="", help="of the JSON file in benchmarks/results; default: gpu-DATE-TIME")
    return parser


def _cells(
    chosen: argparse.Namespace, folder: str, shape: str, method: str, dtype: Dtype, device: torch.device
) -> Iterator[Cell]:
    """All arms of one model and method, each with what it reached or why it did not."""
    arms = ["hf-padded", "hf-grouped", *(f"ours-{seats}" for seats in chosen.seats)]
    if method != "lora" and importlib.util.find_spec("bitsandbytes") is None:
        for lengths in chosen.lengths:
            for arm in arms:
                yield {"shape": shape, "method": method, "lengths": lengths, "arm": arm, "failed": NO_BITSANDBYTES}
        return
    contest = _Contest(chosen, folder, shape, method, dtype, device)
    for lengths in chosen.lengths:
        for arm in arms:
            yield {"shape": shape, "method": method, "lengths": lengths, "arm": arm, **contest.run(arm, lengths)}


class _Contest:
    """The rival's model and ours, both loaded, so that the arms take turns."""

    def __init__(
        self, chosen: argparse.Namespace, folder: str, shape: str, method: str, dtype: Dtype, device: torch.device
    ) -> None:
        from benchmarks.steps import probe, rival
        from benchmarks.steps.shapes import SHAPES
        from tuners.engine import Base, keep_freed_memory

        keep_freed_memory()
        self._chosen, self._dtype, self._device = chosen, dtype, device
        targets = SHAPES[shape].targets
        self._tuner = probe.tuner(method, rank=chosen.rank, targets=targets)
        report.progress(f"{shape}, {method}: loading")
        self._model = rival.load(folder, method, rank=chosen.rank, targets=targets, dtype=dtype, device=device)
        self._base = Base.load(probe.base_spec(folder, self._tuner, dtype=dtype), device)

    def run(self, arm: str, lengths: str) -> Cell:
        """One arm."""
        import torch

        from benchmarks.steps.lengths import LENGTHS
        from tuners.errors import NoRoomError

        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        trainer, _, kind = arm.partition("-")
        try:
            return self._ours(int(kind), LENGTHS[lengths]) if trainer == "ours" else self._rival(kind, LENGTHS[lengths])
        except NoRoomError as error:
            return {"failed": str(error)}
        except torch.OutOfMemoryError as error:
            return {"failed": f"out of memory: {str(error).partition('.')[0]}"}

    def _rival(self, kind: str, lengths: Lengths) -> Cell:
        import numpy as np

        from benchmarks.steps import rival
        from benchmarks.steps.lengths import rows

        vocabulary = int(self._base.config.vocab_size)
        drawn = rows(lengths, RIVAL_ROWS, vocabulary=vocabulary, rng=np.random.default_rng(0))
        padding: rival.Padding = "padded" if kind == "padded" else "grouped"
        rate = rival.train(self._model, drawn, lengths, padding, dtype=self._dtype, seconds=self._chosen.seconds)
        return {"tokens_per_step": rate.tokens_per_s * rate.step_s, **asdict(rate)}

    def _ours(self, seats: int, lengths: Lengths) -> Cell:
        from benchmarks.steps import probe
        from tuners.engine import Pack

        bounds = {"max_tokens": MOST_TOKENS, "memory": self._affordable()} if self._device.type == "cuda" else {}
        pack = Pack(self._base, **bounds)
        sets = probe.fill(pack, seats, lengths, self._tuner, batch_size=lengths.batch)
        speed = probe.measure(pack, sets, self._tuner, batch_size=lengths.batch, seconds=self._chosen.seconds)
        return {**asdict(speed), "share": speed.share, "tokens_per_forward": pack.max_tokens}

    def _affordable(self) -> int:
        """Bytes that may be allocated: what is, and half of what is free; the roof's own weights lie beside it."""
        import torch

        free, _ = torch.cuda.mem_get_info(self._device)
        return torch.cuda.memory_allocated(self._device) + free // 2


def line(cell: Cell) -> str:
    """One cell, as it is done."""
    name = ", ".join(cell[key] for key in ("shape", "method", "lengths", "arm"))
    return f"{name}: {cell['failed']}" if "failed" in cell else f"{name}: {cell['examples_per_s']:.1f} examples/s"


def table(cells: Sequence[Cell]) -> str:
    """A row a cell; the ratios are to the rivals in the same model, method and lengths."""
    header = ["shape", "method", "lengths", "arm", "tokens a step", "ms a step", "examples/s", "tokens/s"]
    rows = []
    for cell in cells:
        labels = [cell["shape"], cell["method"], cell["lengths"], cell["arm"]]
        if "failed" in cell:
            rows.append([*labels, cell["failed"], *[""] * (3 + len(LEAST_RATIO) + 1)])
            continue
        found = {rival: ratio(cells, cell, rival) for rival in LEAST_RATIO}
        rows.append(
            [
                *labels,
                f"{cell['tokens_per_step']:.0f}",
                f"{cell['step_s'] * 1e3:.1f}",
                f"{cell['examples_per_s']:.1f}",
                f"{cell['tokens_per_s']:.0f}",
                *(f"{value:.2f}" if value else "" for value in found.values()),
                f"{cell['share']:.1%}" if "share" in cell else "",
            ]
        )
    return report.table([*header, *(f"x {rival}" for rival in LEAST_RATIO), "of the roof"], rows)


def ratio(cells: Sequence[Cell], cell: Cell, rival: str) -> float | None:
    """Of a cell's rate to the rival's in the same place; None where either is missing."""
    for other in cells:
        same = all(other[key] == cell[key] for key in ("shape", "method", "lengths"))
        if same and other["arm"] == rival and "examples_per_s" in other and "examples_per_s" in cell:
            return float(cell["examples_per_s"] / other["examples_per_s"])
    return None


def targets(cells: Sequence[Cell]) -> list[str]:
    """A line for each target that was measured."""
    ours = [cell for cell in cells if cell["arm"].startswith("ours-") and "failed" not in cell]
    lines = []
    for cell in ours:
        where = f"{cell['shape']}, {cell['method']}, {cell['lengths']}, {cell['arm']}"
        if cell["lengths"] == "cola" and cell["seats"] == max(other["seats"] for other in ours):
            for rival, least in LEAST_RATIO.items():
                if found := ratio(cells, cell, rival):
                    lines.append(f"{where} / {rival} = {found:.2f} (target: {least:g})  {_verdict(found >= least)}")
        if cell["tokens_per_step"] >= FROM_TOKENS:
            share = cell["share"]
            lines.append(
                f"{where}: {share:.1%} of the roof (target: {LEAST_SHARE:.0%})  {_verdict(share >= LEAST_SHARE)}"
            )
    return lines


def _verdict(holds: bool) -> str:
    return "holds" if holds else "FAILS"


if __name__ == "__main__":
    main()
