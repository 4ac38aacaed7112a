"""What a pack takes in memory, foreseen: so that a seat that does not fit is not taken, and forwards are as large as fits.

What a token keeps from forward to backward is measured, once for each kind of seat, on a forward of the seat's own first
batch: autograd tells every tensor that it keeps. The peak of a step is within a few hundredths of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuners.engine.bank import ROW_TENSORS

_SLACK = {"cpu": 1.4, "cuda": 1.1}
"""What allocators take over what is asked of them: pieces of other sizes do not fit together."""
_LIBRARIES = {"cpu": 48 << 20, "cuda": 0}
"""What kernels take when they first run, over what was there when the base was loaded."""
_DEVIATIONS = 3.0
"""Standard deviations over the mean that a step's tokens are foreseen to reach."""


@dataclass(frozen=True)
class Load:
    """What one seat brings."""

    parameters: int
    """Trained, as wide as its row in the bank."""
    tokens: float
    """Of a step, on average."""
    variance: float
    """Of a step's tokens."""
    longest: int
    """Tokens of its longest sequence."""
    token_bytes: float
    """That a token keeps from forward to backward."""


@dataclass(frozen=True)
class Footprint:
    """What a pack takes at its peak, in bytes."""

    fixed: int
    """The process, or what is taken on the device, with the base and without seats."""
    bank: int
    """Parameters, gradients and moments of all seats."""
    activations: int
    """Of the largest forward."""

    @property
    def peak(self) -> int:
        """Of all."""
        return self.fixed + self.bank + self.activations


def footprint(loads: Mapping[str, Load], *, fixed: int, itemsize: int, device: str, max_tokens: int) -> Footprint:
    """Foreseen for these seats with forwards of at most `max_tokens`; a longer sequence goes alone."""
    if not loads:
        return Footprint(fixed, 0, 0)
    tokens = sum(load.tokens for load in loads.values())
    most = tokens + _DEVIATIONS * sum(load.variance for load in loads.values()) ** 0.5
    bounded = max(min(most, max_tokens), max(load.longest for load in loads.values()) if most > max_tokens else 0)
    a_token = sum(load.tokens * load.token_bytes for load in loads.values()) / tokens
    return Footprint(
        fixed + _LIBRARIES[device],
        sum(load.parameters for load in loads.values()) * itemsize * ROW_TENSORS,
        round(bounded * a_token * _SLACK[device]),
    )


def tokens_within(
    limit: int, loads: Mapping[str, Load], *, fixed: int, itemsize: int, device: str, most: int
) -> int | None:
    """The largest forward, up to `most` tokens, with which the seats stay within `limit` bytes; None if none does."""
    least = max(load.longest for load in loads.values())
    found: int | None = None
    low, high = least, max(least, most)
    while low <= high:
        middle = (low + high) // 2
        if footprint(loads, fixed=fixed, itemsize=itemsize, device=device, max_tokens=middle).peak <= limit:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return found


def step_tokens(lengths_N: NDArray[np.int32], batch: int) -> tuple[float, float]:
    """Mean and variance of the tokens of a batch drawn without replacement."""
    size = len(lengths_N)
    batch = min(batch, size)
    left = (size - batch) / max(1, size - 1)
    return batch * float(lengths_N.mean()), batch * float(lengths_N.var()) * left


@contextmanager
def counting_kept(known: Callable[[], set[int]]) -> Iterator[Callable[[], int]]:
    """Counts the bytes that autograd keeps for a backward; storages in `known` are the base's own."""
    kept: dict[int, Tensor] = {}

    def keep(values: Tensor) -> Tensor:
        # The tensor is held, so that no other takes its address.
        kept[values.untyped_storage().data_ptr()] = values
        return values

    def count() -> int:
        skipped = known()
        return sum(values.untyped_storage().nbytes() for place, values in kept.items() if place not in skipped)

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values):
        yield count


def taken(device: torch.device) -> int:
    """Bytes that this process has now: on the device, or of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
