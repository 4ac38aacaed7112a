"""What the time of a step goes to: torch's own profiler over a few steps of a filled pack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import report
from benchmarks.steps import probe
from tuners.engine import Pack

STEPS = 4
_SHOWN = 14
_STEP = "a step"
"""The profiler's name for what no operation of torch's takes."""


@dataclass(frozen=True)
class Part:
    """An operation of torch's, or a function of the engine's with a gradient of its own."""

    name: str
    share: float
    """Of the steps' time, without what it calls."""
    calls: float
    """A step."""


def parts(pack: Pack) -> tuple[Part, ...]:
    """The largest first; what is left to Python and to small operations is in none of them."""
    device = pack.base.device.type
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else ())]
    with profile(activities=activities) as profiled:
        for _ in range(STEPS):
            with torch.profiler.record_function(_STEP):
                probe.step(pack)
    found = profiled.key_averages()
    on_device = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = {each.key: (float(getattr(each, on_device)), each.count) for each in found}
    whole = sum(taken for taken, _ in times.values())
    made = (Part(name, taken / whole, count / STEPS) for name, (taken, count) in times.items() if name != _STEP)
    return tuple(sorted(made, key=lambda part: -part.share))[:_SHOWN]


def table(found: tuple[Part, ...]) -> str:
    """A row for each."""
    rows = [[part.name, f"{part.share:.1%}", f"{part.calls:.0f}"] for part in found]
    return report.table(["operation", "share of a step", "calls a step"], rows)
