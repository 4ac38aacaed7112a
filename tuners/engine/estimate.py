"""What a pack takes in memory, foreseen: a seat that does not fit is not taken, and forwards are as large as fits.

What a token keeps from forward to backward is measured, once for each kind of seat, on a forward of the seat's own
first examples: autograd shows every tensor that it keeps. Where attention keeps its probabilities, a token of a longer
sequence keeps more: that part is measured apart. docs/results.md has what is foreseen beside what is measured.
"""

# N examples

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuners.needs import DIFFERING, LIBRARIES, SLACK, SLACK_OF_DIFFERING

_DEVIATIONS = 3.0
"""Standard deviations over the mean that a step's tokens are foreseen to reach."""


@dataclass(frozen=True)
class Kept:
    """Bytes that autograd keeps for a backward."""

    plain: int
    """For each token as much."""
    squares: int
    """Of tensors with a value for each pair of a sequence's tokens."""


@dataclass(frozen=True)
class Load:
    """What one seat brings."""

    bank: int
    """Bytes of its row in the bank."""
    bank_8bit: int
    """The same with AdamW's moments in 8 bits."""
    tokens: float
    """Of a step, on average."""
    variance: float
    """Of a step's tokens."""
    longest: int
    """Tokens of its longest training sequence."""
    token_bytes: float
    """That a token keeps from forward to backward."""
    states_bytes: float = 0.0
    """Of its states, for networks beside the base. They come in few large pieces, which leave no gaps."""


@dataclass(frozen=True)
class Footprint:
    """What a pack takes at its peak, in bytes."""

    fixed: int
    """The process, or what it has on the device, with the base and without seats."""
    bank: int
    """Parameters, gradients and moments of all seats."""
    activations: int
    """Of the largest forward."""

    @property
    def peak(self) -> int:
        """Of all together."""
        return self.fixed + self.bank + self.activations


class Foresight:
    """Foresees the memory of one pack. Made when its base is loaded and no seat is there."""

    def __init__(self, device: torch.device, *, more: int = 0) -> None:
        """`more`: bytes that will be taken whoever is in."""
        self._device = device
        self._fixed = _taken(device) + LIBRARIES[device.type] + more

    def footprint(self, loads: Collection[Load], max_tokens: int) -> Footprint:
        """With forwards of at most `max_tokens`; a longer sequence goes alone."""
        bank = sum(load.bank for load in loads)
        most, bound = _most(loads), max(max_tokens, _longest(loads))
        return Footprint(self._fixed, bank, round(min(most, bound) * self._token(loads, several=most > bound)))

    def token_bytes(self, loads: Collection[Load]) -> float:
        """That a token of a forward takes, with the allocator's part, where forwards are as small as they can be."""
        return self._token(loads, several=_most(loads) > _longest(loads))

    def tokens_within(self, limit: int, loads: Collection[Load], *, most: int) -> int:
        """The largest forward with which these seats stay within `limit` bytes; below 1 where none does.

        `most`: tokens that a forward will have at most, whatever fits.
        """
        empty = self.footprint(loads, 0)
        room = limit - empty.fixed - empty.bank
        whole = room / self._token(loads, several=False)
        return int(whole if _most(loads) <= min(whole, most) else room / self._token(loads, several=True))

    def _token(self, loads: Collection[Load], *, several: bool) -> float:
        """Bytes that a token of a step takes, on average, where the step has one forward or `several`."""
        tokens = sum(load.tokens for load in loads)
        differ = several or _differing_bytes(loads) > DIFFERING
        slack = (SLACK_OF_DIFFERING if differ else SLACK)[self._device.type]
        found = sum(load.tokens * (slack * load.token_bytes + load.states_bytes) for load in loads)
        return found / tokens if tokens else 0.0


def _most(loads: Collection[Load]) -> float:
    """Tokens that a step of all seats is foreseen to reach."""
    return sum(load.tokens for load in loads) + _DEVIATIONS * math.sqrt(sum(load.variance for load in loads))


def _differing_bytes(loads: Collection[Load]) -> float:
    """By how much a large step's tensors are foreseen to exceed an average one's."""
    tokens = sum(load.tokens for load in loads)
    kept = sum(load.tokens * load.token_bytes for load in loads) / tokens if tokens else 0.0
    return (_most(loads) - tokens) * kept


def _longest(loads: Collection[Load]) -> int:
    return max((load.longest for load in loads), default=0)


def step_tokens(lengths_N: NDArray[np.int32], batch: int) -> tuple[float, float]:
    """Mean and variance of the tokens of a batch drawn without replacement."""
    size = len(lengths_N)
    batch = min(batch, size)
    left = (size - batch) / max(1, size - 1)
    return batch * float(lengths_N.mean()), batch * float(lengths_N.var()) * left


@contextmanager
def counting_kept(own: Collection[Tensor]) -> Iterator[Callable[[], Kept]]:
    """Counts the bytes that autograd would keep for a backward, beside those of the base's `own` tensors.

    What is computed within cannot be gone back through.
    """
    kept: dict[int, Tensor] = {}
    square: set[int] = set()

    def keep(values: Tensor) -> None:
        # The tensor is held, so that no other takes its address; not by the graph, which would then hold itself.
        place = values.untyped_storage().data_ptr()
        kept[place] = values
        if values.dim() == 4 and values.shape[2] == values.shape[3]:  # [N, H, L, L]
            square.add(place)

    def count() -> Kept:
        known = {values.untyped_storage().data_ptr() for values in own}
        sizes = {place: values.untyped_storage().nbytes() for place, values in kept.items() if place not in known}
        squares = sum(size for place, size in sizes.items() if place in square)
        return Kept(sum(sizes.values()) - squares, squares)

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing):
            yield count
    finally:
        # The tensors hold the graph, and the graph the hook that holds them.
        kept.clear()


def _taken(device: torch.device) -> int:
    """Bytes that this process has now: on the device, or of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
