"""How a benchmark reports: a table to read, JSON to keep, and where and with what it ran.

Needs nothing but Python, so that a script runs on a machine where only its own libraries are installed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "ray", "optuna", "mlflow")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table: it reads well in a terminal and in docs/results.md."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def progress(text: str) -> None:
    """A line to stderr: what is being measured now."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Where, when and with what a figure was got on a torch device; the version of what is not installed is None."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "device": _gpu() if device.startswith("cuda") else _processor(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def where(machine: Mapping[str, Any]) -> str:
    """`machine` in a line, for the top of a table."""
    versions = ", ".join(f"{name} {machine[name]}" for name in PACKAGES[:4] if machine[name])
    return f"{machine['device']}, {machine['cores']} cores, {versions}, {machine['date']}"


def save(name: str, content: Mapping[str, Any]) -> str:
    """Write benchmarks/results/NAME.json; its place from the repository's root. Called again, it replaces it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    return str(path.relative_to(RESULTS.parents[1]))


def options(chosen: Mapping[str, object]) -> dict[str, object]:
    """A script's options as they go into its JSON: of a folder only its name, the rest is this machine's business."""
    shown: dict[str, object] = {}
    for name, value in chosen.items():
        path = Path(value) if isinstance(value, str | Path) else None
        shown[name] = path.name if path is not None and (isinstance(value, Path) or path.is_absolute()) else value
    return shown


def quiet() -> None:
    """Keep the libraries' notes about what is deprecated or could be installed out of the table. Loads transformers."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _gpu() -> str:
    import torch

    free, total = torch.cuda.mem_get_info()
    return (
        f"{torch.cuda.get_device_name()}, {total / 2**30:.0f} GiB ({free / 2**30:.0f} free), CUDA {torch.version.cuda}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
