"""Random streams that belong to a seat: what is drawn depends on (seed, what for), never on the place in the pack.

Dropout masks are a hash of (seed, step, row within the seat, site, element). Nothing is consumed, so a mask does not
depend on the neighbours, on how a step is cut into micro-batches, or on the device.
"""

# N sequences, T tokens, W elements of a token's state, H heads, B = N H, L the longest sequence of a bucket

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

INIT, ORDER, DROPOUT = 1, 2, 3

_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as torch's int64 has it."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


# Odd constants, one a coordinate (Weyl sequences); then splitmix64's finaliser makes bits out of the sum.
_GOLDEN = 0x9E3779B97F4A7C15
_SITE, _POSITION, _COLUMN, _HEAD = (
    _signed(c) for c in (0xD1342543DE82EF95, 0xAF251AF3B0F025B5, 0xC2B2AE3D27D4EB4F, 0x8CB92BA72F3D8DD7)
)
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LANES = 4  # 16-bit draws in a 64-bit hash


def mix(*values: int) -> int:
    """One 64-bit key out of several numbers."""
    key = 0
    for value in values:
        key = (key ^ (value & _MASK)) + _GOLDEN & _MASK
        key = (key ^ key >> 30) * _FIRST & _MASK
        key = (key ^ key >> 27) * _SECOND & _MASK
        key ^= key >> 31
    return key


def generator(seed: int, *what: int) -> torch.Generator:
    """A stream of a seat's own on the CPU, for what is drawn seldom."""
    return torch.Generator().manual_seed(mix(seed, *what))


def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """[N] the data order of an epoch: plain, shuffled."""
    return np.random.Generator(np.random.PCG64([seed, ORDER, epoch])).permutation(size)


def row_keys(seed: int, step: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] the dropout keys of a step's rows, numbered within the seat."""
    key = rows.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(mix(seed, DROPOUT, step))
    key = (key ^ key >> np.uint64(30)) * np.uint64(_FIRST)
    key = (key ^ key >> np.uint64(27)) * np.uint64(_SECOND)
    return (key ^ key >> np.uint64(31)).view(np.int64)


def token_keys(keys_N: NDArray[np.int64], sequence_T: NDArray[np.int64], position_T: NDArray[np.int64]) -> Any:
    """[T] a row's key for each of its tokens."""
    return keys_N[sequence_T] + position_T * np.int64(_POSITION)


def keep_rows(keys_T: Tensor, site: int, width: int, p: float | Tensor) -> Tensor:
    """int16 [T, W]: what dropout keeps of each row's W elements (`apply_mask`); p for all rows, or [T] each row's."""
    lanes = -(-width // _LANES)
    columns = torch.arange(lanes, device=keys_T.device) * _COLUMN
    kept = _keep(keys_T[:, None] + columns.add_(_signed(site * _SITE)), p)
    return kept if kept.shape[1] == width else kept[:, :width]


def pair_keys(keys_N: Tensor, site: int, heads: int) -> Tensor:
    """[N H] a row's key for each head, for what is drawn of pairs of tokens."""
    head = torch.arange(heads, device=keys_N.device) * _HEAD
    return (keys_N[:, None] + head.add_(_signed(site * _SITE))).flatten()


def keep_pairs(keys_B: Tensor, length: int, p: float) -> Tensor:
    """int16 [B, L, L]: what dropout keeps of attention's probabilities; an element's draw does not depend on L."""
    lanes = -(-length // _LANES)
    position = torch.arange(length, device=keys_B.device)
    grid = position[:, None] * _POSITION + position[:lanes] * _COLUMN
    return _keep(keys_B[:, None, None] + grid, p)[..., :length]


def threshold(p: float | Tensor) -> int | Tensor:
    """The 16-bit draws below it are dropped; int16 [T, 1] for the p of each row."""
    if isinstance(p, Tensor):
        return (torch.round(p * 65536) - 32768).to(torch.int16)[:, None]
    return round(p * 65536) - 32768


def _keep(state: Tensor, p: float | Tensor) -> Tensor:
    """int64 [..., n] -> int16 [..., 4 n]; consumes its argument."""
    scratch = torch.empty_like(state)
    for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
        torch.bitwise_right_shift(state, shift, out=scratch)
        # The shift copies the sign bit, which would bias the upper draws.
        state.bitwise_xor_(scratch.bitwise_and_((1 << 64 - shift) - 1))
        if factor != 1:
            state.mul_(_signed(factor))
    draws = state.view(torch.int16)
    return torch.ge(draws, threshold(p), out=torch.empty_like(draws)).neg_()


def apply_mask(x: Tensor, keep: Tensor) -> Tensor:
    """x where `keep` (int16, or `widened`) has all bits set, 0 where it has none.

    Bits, because a product with a bool takes a CPU several times as long, most of all in bfloat16.
    """
    return torch.bitwise_and(x.view(_BITS[x.dtype]), keep).view(x.dtype)


def widened(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """What is applied to more than one tensor of this type, as `apply_mask` is quickest with it."""
    return keep.to(_BITS[dtype])


_BITS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


class Masked(torch.autograd.Function):
    """apply_mask(x) / (1 - p)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return apply_mask(x, keep).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return apply_mask(gradients[0], keep).mul_(ctx.scale), None, None


def masked(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """Dropout with a mask that is given: [...] and int16 [...] -> [...]."""
    out: Tensor = Masked.apply(x, keep, 1.0 / (1.0 - p))  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out
