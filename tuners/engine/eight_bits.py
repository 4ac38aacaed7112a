"""AdamW's moments in 8 bits, quantised block by block (Dettmers et al. 2021, arXiv 2110.02861).

The quantisation and the update are bitsandbytes' own. As there, weights of few values keep float32 moments, and so do
biases and norms.
"""

# E parameters, B blocks of 256

from __future__ import annotations

from collections.abc import Mapping

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

_BLOCK = 256
_PIECE = 1 << 18
"""Parameters updated at a time on a CPU, where bitsandbytes dequantises all that it is given."""


class EightBits:
    """Of one seat's large weights: two bytes a parameter, and a scale a block and moment."""

    def __init__(self, size: int, device: torch.device, *, paged: bool) -> None:
        """`paged`: in memory that a CUDA device shares with its host, which moves what does not fit."""
        memory = bnb.get_paged if paged else torch.empty
        self._m, self._v = (memory(size, dtype=torch.uint8, device=device) for _ in range(2))
        for values in (self._m, self._v):
            values.zero_()
        self._paged = paged
        blocks = -(-size // _BLOCK)
        self._m_scales, self._v_scales = (torch.zeros(blocks, device=device) for _ in range(2))
        self._signed = bnb.create_dynamic_map(signed=True).to(device)
        self._unsigned = bnb.create_dynamic_map(signed=False).to(device)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that counts, where it lies: uint8 [E] and float [B] of each moment."""
        return {"m8": self._m, "v8": self._v, "m_scales": self._m_scales, "v_scales": self._v_scales}

    def update(
        self, theta_E: Tensor, g_E: Tensor, *, step: int, learning_rate: float, betas: tuple[float, float], eps: float
    ) -> None:
        """One step of AdamW without its decay, in place; `step` counts from 1."""
        if self._paged:
            for values in (self._m, self._v):
                bnb.prefetch_tensor(values)
        piece = _PIECE if theta_E.device.type == "cpu" else len(theta_E)
        for start in range(0, len(theta_E), piece):
            part = slice(start, start + piece)
            # A paged tensor's slice would not be known as one.
            m_E, v_E = (self._m, self._v) if self._paged else (self._m[part], self._v[part])
            blocks = slice(start // _BLOCK, -(-(start + piece) // _BLOCK))
            bnb.optimizer_update_8bit_blockwise(
                "adam",
                g_E[part],
                theta_E[part],
                m_E,
                v_E,
                *betas,
                0.0,  # of other optimisers
                0.0,
                eps,
                step,
                learning_rate,
                self._signed,
                self._unsigned,
                self._m_scales[blocks],
                self._v_scales[blocks],
            )
        if self._paged:
            # Its memory is the host's as well: nothing there may be read while the device writes it.
            torch.cuda.synchronize(theta_E.device)
