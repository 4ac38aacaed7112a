"""Attention that forms its probabilities: for dropout drawn by the seats, and for short sequences on a CPU."""

# N sequences, H heads, L tokens, D elements a head, B = N H

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuners.engine.streams import apply_mask

SHORT = 128
"""Tokens up to which sequences count as short on a CPU."""
_NEVER = float("-inf")


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    keep: Tensor | None,
    p: float,
) -> Tensor:
    """dropout(softmax(scale q k^T)) v, all of q, k, v and the result [N, H, L, D].

    `mask` (bool [N, 1, 1, L]) is true at the keys that count; `causal` hides those after the query; `keep` (int16
    [N, H, L, L], `apply_mask`) is what dropout with probability `p` keeps of the probabilities. Computed in the inputs'
    type; short sequences on a CPU in float32, where 16 bits would save little and make the gradients 2 to 10 times as
    inexact.
    """
    out: Tensor = _Plain.apply(q, k, v, mask, causal, scale, keep, p)  # type: ignore[no-untyped-call]  # torch's apply is untyped
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
        keep: Tensor | None,
        p: float,
    ) -> Tensor:
        shape = q.shape
        exact = q.device.type == "cpu" and shape[2] <= SHORT
        dtype = torch.promote_types(q.dtype, torch.float32) if exact else q.dtype
        q_BLD, k_BLD, v_BLD = _flat(q, dtype).mul_(scale), _flat(k, dtype), _flat(v, dtype)
        scores = torch.bmm(q_BLD, k_BLD.transpose(1, 2)).view(*shape[:3], shape[2])
        if mask is not None:
            scores.masked_fill_(~mask, _NEVER)
        if causal:
            scores.masked_fill_(torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu_(1), _NEVER)
        kept = torch.softmax(scores, -1)
        ctx.save_for_backward(q_BLD, k_BLD, v_BLD, kept, keep)
        ctx.scale, ctx.p = scale, p
        out = torch.bmm(_dropped(kept, keep), v_BLD)
        return (out if keep is None else out.div_(1 - p)).to(q.dtype).view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_BLD, k_BLD, v_BLD, kept, keep = ctx.saved_tensors
        g, shape = gradients[0], gradients[0].shape
        g_BLD = _flat(g, kept.dtype)
        g_BLD = g_BLD if keep is None else g_BLD.div_(1 - ctx.p)
        gv = torch.bmm(_dropped(kept, keep).transpose(1, 2), g_BLD)
        gp = _dropped(torch.bmm(g_BLD, v_BLD.transpose(1, 2)).view_as(kept), keep)
        gs = torch._softmax_backward_data(gp.view_as(kept), kept, -1, kept.dtype).flatten(0, 1)
        gq = torch.bmm(gs, k_BLD).mul_(ctx.scale)
        gk = torch.bmm(gs.transpose(1, 2), q_BLD)  # of the scaled q: the scale is in it
        gq, gk, gv = (each.to(g.dtype).view(shape) for each in (gq, gk, gv))
        return gq, gk, gv, None, None, None, None, None


def _flat(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, H, L, D] -> [B, L, D], a copy."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(0, 1)


def _dropped(x: Tensor, keep: Tensor | None) -> Tensor:
    """[N, H, L, L] -> [B, L, L]"""
    return (x if keep is None else apply_mask(x, keep)).flatten(0, 1)
