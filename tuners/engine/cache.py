"""Keys and values of sequences that are gone on with, a layer at a time."""

# B sequences, L places of each, T tokens of the prompts, H heads, K key heads, G heads a key head, D elements a head

from __future__ import annotations

import torch
from torch import Tensor


class Cache:
    """Filled by the forward of the prompts; every later forward has one token of each sequence."""

    def __init__(self, starts_B: Tensor, lengths_B: Tensor, most: int) -> None:
        """`starts_B`: the prompts' first tokens, int64; `most`: the tokens that any of them will have."""
        self.lengths = lengths_B
        """int64 [B] tokens of each that are in."""
        within_BL = torch.arange(int(lengths_B.max()), device=lengths_B.device).minimum(lengths_B[:, None] - 1)
        self._sources_BL = starts_B[:, None] + within_BL
        self._most = most
        self._rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        """By layer: [B, K, L, D] each; what is beyond a sequence's length is not read."""
        self._prompts = True
        self._look()

    def hold(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Take the prompts' keys and values in: [1, K, T, D] each."""
        self._kept[layer] = self._placed(key), self._placed(value)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """query [1, H, B, D], key and value [1, K, B, D], of the sequences' next tokens -> [1, B, H, D]."""
        keys_BKLD, values_BKLD = self._kept[layer]
        keys_BKLD[self._rows_B, :, self.lengths] = key[0].transpose(0, 1)
        values_BKLD[self._rows_B, :, self.lengths] = value[0].transpose(0, 1)
        heads, size, count = query.shape[1], query.shape[3], self._count
        q_BKGD = query[0].transpose(0, 1).reshape(len(self._rows_B), keys_BKLD.shape[1], -1, size)
        scores_BKGL = (q_BKGD @ keys_BKLD[:, :, :count].transpose(2, 3)).float() * scale
        p_BKGL = scores_BKGL.masked_fill_(self._unwritten_BL[:, None, None], float("-inf")).softmax(3)
        out_BKGD = p_BKGL.to(values_BKLD.dtype) @ values_BKLD[:, :, :count]
        return out_BKGD.reshape(1, -1, heads, size)

    @property
    def prompts(self) -> bool:
        """Whether the forward that runs is that of the prompts."""
        return self._prompts

    def advance(self) -> None:
        """A forward is done."""
        if not self._prompts:
            # Those that have ended are computed along for a while.
            self.lengths = (self.lengths + 1).clamp_(max=self._most - 1)
        self._prompts = False
        self._look()

    def keep(self, places: Tensor) -> None:
        """Go on with these sequences only."""
        self.lengths, self._rows_B = self.lengths[places], self._rows_B[: len(places)]
        for layer, (keys, values) in self._kept.items():
            self._kept[layer] = keys[places], values[places]
        self._look()

    def _look(self) -> None:
        """What the next tokens see: once for all layers, since on a device the host has to wait for it."""
        self._count = int(self.lengths.max()) + 1
        self._unwritten_BL = torch.arange(self._count, device=self.lengths.device) > self.lengths[:, None]

    def _placed(self, x: Tensor) -> Tensor:
        batch, longest = self._sources_BL.shape
        # Zeros: a place that is not written yet is multiplied by a probability of 0, and memory as it comes may be NaN.
        out_BKLD = x.new_zeros(batch, x.shape[1], self._most, x.shape[3])
        out_BKLD[:, :, :longest] = x[0][:, self._sources_BL].transpose(0, 1)
        return out_BKLD
