"""The packed training engine: many seats at once on one frozen base. Loads torch."""

from __future__ import annotations

from tuners.engine.base import Base
from tuners.engine.gemm import native_dtype
from tuners.engine.generate import Asker
from tuners.engine.group import Group, Workers
from tuners.engine.memory import forget_peak, keep_freed_memory, peak_bytes
from tuners.engine.pack import Pack
from tuners.engine.reader import Reader
from tuners.engine.state import SeatState
from tuners.engine.types import (
    AnyExample,
    BaseSpec,
    Evaluation,
    Example,
    Examples,
    HeadSpec,
    Progress,
    SeatSpec,
    StepReport,
)

__all__ = [
    "AnyExample",
    "Asker",
    "Base",
    "BaseSpec",
    "Evaluation",
    "Example",
    "Examples",
    "Group",
    "HeadSpec",
    "Pack",
    "Progress",
    "Reader",
    "SeatSpec",
    "SeatState",
    "StepReport",
    "Workers",
    "forget_peak",
    "keep_freed_memory",
    "native_dtype",
    "peak_bytes",
]
