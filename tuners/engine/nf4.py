"""Frozen weights in 4-bit NF4 (QLoRA), dequantised into one buffer that all layers of a base share.

The GEMM is ours and not bitsandbytes': its CPU layer repacks the weights in a forward without gradients, after which
training goes on with zero gradients and no error.
"""

# O out, I in, B blocks of 64 values

from __future__ import annotations

import bitsandbytes.functional as bnb
import torch
from torch import Tensor, nn

_BLOCK = 64
_PIECE = 1 << 20
"""Values dequantised at a time on a CPU, where bitsandbytes cannot write into memory that is there."""


class Buffer:
    """Memory for one dense weight: fresh pages for each would cost half a GEMM."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def of(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """[size], with whatever was there."""
        if self._memory is None or self._memory.numel() < size:
            self._memory = torch.empty(size, dtype=dtype, device=device)
        assert self._memory.dtype == dtype
        return self._memory[:size]


class Nf4Weight(nn.Module):
    """One quantised weight: 4 bits a value, a scale a block of 64 (itself in 8 bits with `double`)."""

    def __init__(self, weight_OI: Tensor, buffer: Buffer, *, double: bool) -> None:
        super().__init__()
        packed, state = bnb.quantize_4bit(
            weight_OI.detach().contiguous(), blocksize=_BLOCK, compress_statistics=double, quant_type="nf4"
        )
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.absmax = nn.Parameter(state.absmax, requires_grad=False)
        self._state, self._buffer = state, buffer
        # What little else the state holds, by the same tensors: so it moves along with the module.
        small = [state.code, *((state.offset, state.state2.absmax, state.state2.code) if state.nested else ())]
        for number, values in enumerate(small):
            self.register_buffer(f"state{number}", values, persistent=False)

    def dense(self) -> Tensor:
        """[O, I] in the dtype it was quantised from; the next call of any weight of this base overwrites it."""
        state, size, packed = self._state, torch.Size(self._state.shape).numel(), self.packed
        # Where the base is sharded, the parameter is another tensor in a forward than between two.
        state.absmax = self.absmax
        out = self._buffer.of(size, state.dtype, packed.device)
        if packed.device.type != "cpu":
            bnb.dequantize_4bit(packed, state, out=out.view(state.shape))
            return out.view(state.shape)
        packed_n, scales_B = packed.view(-1), self._scales()
        for start in range(0, size, _PIECE):
            end = min(size, start + _PIECE)
            piece = torch.ops.bitsandbytes.dequantize_4bit(
                packed_n[start // 2 : -(-end // 2)],
                scales_B[start // _BLOCK : -(-end // _BLOCK)],
                _BLOCK,
                "nf4",
                [1, end - start],
                state.dtype,
            )
            out[start:end] = piece.view(-1)
        return out.view(state.shape)

    def _scales(self) -> Tensor:
        """float32 [B]"""
        state = self._state
        if not state.nested:
            return torch.as_tensor(state.absmax)
        return torch.as_tensor(bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset)
