"""Attention that forms its probabilities: for dropout drawn by the seats, and for short sequences on a CPU."""

# N sequences, H heads, L tokens, D elements a head, B = N H

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuners.engine.streams import apply_mask, keep_pairs

SHORT = 128
"""Tokens up to which sequences count as short: their probabilities are kept for the backward."""
_PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Probabilities of longer ones that exist at a time: on a CPU as many as stay in a core's cache with what is made of
them, on a GPU as many as keep it busy."""
_NEVER = float("-inf")


@dataclass(frozen=True)
class Dropout:
    """Of the probabilities."""

    keys: Tensor
    """int64 [B]: whose draws they are (`streams.pair_keys`)."""
    p: float

    def keep(self, part: slice, length: int) -> Tensor:
        """int16 [b, L, L]: what is kept of a part's probabilities (`apply_mask`)."""
        return keep_pairs(self.keys[part], length, self.p)


@dataclass(frozen=True)
class _Hidden:
    """The keys that a query does not see."""

    padding: Tensor | None
    """bool [B, 1, L]"""
    later: Tensor | None
    """bool [L, L]"""

    def hide(self, scores: Tensor, part: slice) -> None:
        if self.padding is not None:
            scores.masked_fill_(self.padding[part], _NEVER)
        if self.later is not None:
            scores.masked_fill_(self.later, _NEVER)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, scale: float, dropout: Dropout | None
) -> Tensor:
    """dropout(softmax(scale q k^T)) v, all of q, k, v and the result [N, H, L, D].

    `mask` (bool [N, 1, 1, L]) is true at the keys that count; `causal` hides those after the query. Computed in the
    inputs' type; short sequences on a CPU in float32, where 16 bits would save little and make the gradients 2 to 10
    times as inexact.

    Of long sequences nothing is kept that has a value for each pair of tokens: the backward forms the probabilities
    and draws what is dropped again, a piece at a time (Dao et al. 2022, FlashAttention, section 3.1).
    """
    out: Tensor = _Plain.apply(q, k, v, mask, causal, scale, dropout)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


class _Plain(torch.autograd.Function):
    """Written out, because autograd would keep and pass over the scores several times more."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        dropout: Dropout | None,
    ) -> Tensor:
        shape = q.shape
        short = shape[2] <= SHORT
        dtype = torch.promote_types(q.dtype, torch.float32) if short and q.device.type == "cpu" else q.dtype
        q_BLD, k_BLD, v_BLD = _flat(q, dtype).mul_(scale), _flat(k, dtype), _flat(v, dtype)
        hidden, out_BLD = _hidden(mask, causal, shape, q.device), torch.empty_like(v_BLD)
        kept: tuple[Tensor, Tensor | None] | tuple[()] = ()
        for part in _parts(q_BLD):
            probabilities = _probabilities(q_BLD[part], k_BLD[part], hidden, part)
            keep = dropout.keep(part, shape[2]) if dropout else None
            torch.bmm(_dropped(probabilities, keep), v_BLD[part], out=out_BLD[part])
            if short:
                pairs = (*shape[:3], shape[2])  # [N, H, L, L], by which an estimate of memory knows them
                kept = (probabilities.view(pairs), None if keep is None else keep.view(pairs))
        ctx.save_for_backward(q_BLD, k_BLD, v_BLD, *kept)
        ctx.hidden, ctx.scale, ctx.dropout = hidden, scale, dropout
        return (out_BLD.div_(1 - dropout.p) if dropout else out_BLD).to(q.dtype).view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_BLD, k_BLD, v_BLD, *kept = ctx.saved_tensors
        g, dropout, shape = gradients[0], ctx.dropout, gradients[0].shape
        g_BLD = _flat(g, q_BLD.dtype)
        g_BLD = g_BLD.div_(1 - dropout.p) if dropout else g_BLD
        gq, gk, gv = (torch.empty_like(x) for x in (q_BLD, k_BLD, v_BLD))
        for part in _parts(q_BLD):
            if kept:
                probabilities, keep = kept[0].flatten(0, 1), None if kept[1] is None else kept[1].flatten(0, 1)
            else:
                probabilities = _probabilities(q_BLD[part], k_BLD[part], ctx.hidden, part)
                keep = dropout.keep(part, shape[2]) if dropout else None
            torch.bmm(_dropped(probabilities, keep).transpose(1, 2), g_BLD[part], out=gv[part])
            gp = _dropped(torch.bmm(g_BLD[part], v_BLD[part].transpose(1, 2)), keep)
            gs = torch._softmax_backward_data(gp, probabilities, -1, probabilities.dtype)
            torch.bmm(gs, k_BLD[part], out=gq[part])
            torch.bmm(gs.transpose(1, 2), q_BLD[part], out=gk[part])  # of the scaled q: the scale is in it
        gq, gk, gv = (each.to(g.dtype).view(shape) for each in (gq.mul_(ctx.scale), gk, gv))
        return gq, gk, gv, None, None, None, None


def _parts(x_BLD: Tensor) -> Iterator[slice]:
    """Short sequences all at once."""
    batch, length, _ = x_BLD.shape
    size = batch if length <= SHORT else max(1, _PIECE[x_BLD.device.type] // length**2)
    return (slice(first, first + size) for first in range(0, batch, size))


def _probabilities(q_BLD: Tensor, k_BLD: Tensor, hidden: _Hidden, part: slice) -> Tensor:
    """[b, L, L]"""
    scores = torch.bmm(q_BLD, k_BLD.transpose(1, 2))
    hidden.hide(scores, part)
    return torch.softmax(scores, -1)


def _hidden(mask: Tensor | None, causal: bool, shape: torch.Size, device: torch.device) -> _Hidden:
    _, heads, length, _ = shape
    padding = None if mask is None else (~mask[:, :, 0]).repeat_interleave(heads, 0)
    later = torch.ones(length, length, dtype=torch.bool, device=device).triu_(1) if causal else None
    return _Hidden(padding, later)


def _flat(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, H, L, D] -> [B, L, D], a copy."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(0, 1)


def _dropped(x: Tensor, keep: Tensor | None) -> Tensor:
    return x if keep is None else apply_mask(x, keep)
