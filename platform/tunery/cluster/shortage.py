"""What a pack that ran out of memory might be given instead: said by whoever outlives it.

A pack notes what its seats take whenever one is taken; when its process has died for want of memory, the process that
watches over it reads that.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from storage.files import write_whole
from tuners.needs import Need, advice, size, told
from tunery.cluster.orders import PackOrder
from tunery.cluster.retry import Cause

CAUSES = (Cause.DEVICE_MEMORY, Cause.HOST_MEMORY)
LESS = 0.8
"""Of what was foreseen when memory ran out: what is advised takes at most so much."""


def note(order: PackOrder, need: Need, limit: int) -> None:
    """The pack's side."""
    write_whole(_file(order), json.dumps({"need": asdict(need), "limit": limit}).encode())


def explained(order: PackOrder, cause: Cause, why: str) -> str:
    """Why a pack was given up; with what takes less, if it was for want of memory and is known."""
    if cause not in CAUSES or not _file(order).exists():
        return why
    noted = json.loads(_file(order).read_bytes())
    need, limit = Need(**noted["need"]), int(noted["limit"])
    # Where less was foreseen than there should be, the estimate was wrong or others took it.
    changes = advice(need, min(limit, int(LESS * need.least)))
    return f"{why}; it was foreseen to take at least {size(need.least)} of {size(limit)}; {told(changes)}"


def _file(order: PackOrder) -> Path:
    return order.run / "packs" / f"{order.pack}.json"
