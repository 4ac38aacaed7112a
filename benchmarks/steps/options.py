"""The options that the benchmarks of a step against the number of seats have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from benchmarks.steps.lengths import LENGTHS
from benchmarks.steps.methods import METHODS
from benchmarks.steps.shapes import SHAPES


def against_seats(
    description: str | None, *, dtypes: Sequence[str], methods: Sequence[str] = METHODS
) -> argparse.ArgumentParser:
    """What is trained, at which sizes, on what."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["minilm", "smollm2-6"])
    parser.add_argument("--methods", nargs="+", choices=methods, default=["lora", "qlora"])
    parser.add_argument("--lengths", nargs="+", choices=tuple(LENGTHS), default=["cola", "long"])
    parser.add_argument("--seats", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help="of the base (default: float32)")
    parser.add_argument("--device", default="cpu", help="a torch device (default: cpu)")
    parser.add_argument("--tiny", action="store_true", help="hardly any weights: only to see the code run")
    parser.add_argument("--name", default="", help="of the JSON file in benchmarks/results")
    return parser
