"""Frozen weights in 4-bit NF4 (QLoRA), dequantised into one buffer that all layers of a base share.

The GEMM is ours and not bitsandbytes': its CPU layer repacks the weights in a forward without gradients, after which
training goes on with zero gradients and no error.
"""

# O out, I in

from __future__ import annotations

import bitsandbytes.functional as bnb
import torch
from torch import Tensor


class Buffer:
    """Memory for one dense weight; fresh pages for each cost half a GEMM."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def of(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """[*shape], with whatever was there."""
        size = shape.numel()
        if self._memory is None or self._memory.numel() < size or self._memory.dtype != dtype:
            self._memory = torch.empty(size, dtype=dtype, device=device)
        return self._memory[:size].view(shape)


class Nf4Weight:
    """One quantised weight: 4 bits a value, a scale a block of 64 (itself in 8 bits with `double`)."""

    def __init__(self, weight_OI: Tensor, buffer: Buffer, *, double: bool) -> None:
        self._packed, self._state = bnb.quantize_4bit(
            weight_OI.detach().contiguous(), blocksize=64, compress_statistics=double, quant_type="nf4"
        )
        self._buffer = buffer

    def dense(self) -> Tensor:
        """[O, I] in the dtype it was quantised from; the next call of any weight of this base overwrites it."""
        state = self._state
        out = self._buffer.of(torch.Size(state.shape), state.dtype, self._packed.device)
        bnb.dequantize_4bit(self._packed, state, out=out)
        return out
