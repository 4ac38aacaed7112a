"""Attention that forms its probabilities: for dropout drawn by the seats, and for short sequences on a CPU."""

# N sequences, H heads, L tokens, D elements a head, B = N H; of a part b rows and W tokens

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tuners.engine.streams import apply_mask, keep_pairs, widened

SHORT = 128
"""Tokens up to which sequences count as short: their probabilities are kept for the backward."""
_PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Probabilities of longer ones that exist at a time: on a CPU as many as stay in a core's cache with what is made of
them, on a GPU as many as keep it busy."""
_GRID = 8
"""Widths of pieces are multiples of it: kernels are made for a few shapes that come again."""
_NEVER = float("-inf")


@dataclass(frozen=True)
class Dropout:
    """Of the probabilities."""

    keys: Tensor
    """int64 [B]: whose draws they are (`streams.pair_keys`)."""
    p: float

    def keep(self, rows: slice, length: int) -> Tensor:
        """int16 [b, L, L]: what is kept of some rows' probabilities (`apply_mask`)."""
        return keep_pairs(self.keys[rows], length, self.p)


class _Part(NamedTuple):
    """What is computed at a time."""

    rows: slice
    """Of B."""
    width: int
    """So many of the L tokens."""
    real: int | None
    """Of those, the ones that count: the part is of one sequence. None: of several, and `_Hidden.padding` knows."""


@dataclass(frozen=True)
class _Hidden:
    """The keys that a query does not see."""

    padding: Tensor | None
    """bool [B, 1, L]"""
    later: Tensor | None
    """bool [L, L]"""

    def hide(self, scores: Tensor, part: _Part) -> None:
        if part.real is not None:
            scores[..., part.real :] = _NEVER
        elif self.padding is not None:
            scores.masked_fill_(self.padding[part.rows], _NEVER)
        if self.later is not None:
            scores.masked_fill_(self.later[: part.width, : part.width], _NEVER)


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    lengths: Sequence[int],
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: Dropout | None,
) -> Tensor:
    """dropout(softmax(scale q k^T)) v, all of q, k, v and the result [N, H, L, D].

    Of each of the N sequences the first `lengths` tokens count, which `mask` (bool [N, 1, 1, L]; None: all of them, or
    `causal`, which hides those after the query) says once more; what comes out for the others is finite, and nobody's.
    Computed in the inputs' type; short sequences on a CPU in float32, where 16 bits would save little and make the
    gradients 2 to 10 times as inexact.

    Of long sequences nothing is kept that has a value for each pair of tokens: the backward forms the probabilities
    and draws what is dropped again, a piece at a time (Dao et al. 2022, FlashAttention, section 3.1). On a CPU no piece
    is wider than its sequence.
    """
    out: Tensor = _Plain.apply(q, k, v, tuple(lengths), mask, causal, scale, dropout)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


class _Plain(torch.autograd.Function):
    """Written out, because autograd would keep and pass over the scores several times more."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        lengths: tuple[int, ...],
        mask: Tensor | None,
        causal: bool,
        scale: float,
        dropout: Dropout | None,
    ) -> Tensor:
        shape = q.shape
        short = shape[2] <= SHORT
        dtype = torch.promote_types(q.dtype, torch.float32) if short and q.device.type == "cpu" else q.dtype
        q_BLD, k_BLD, v_BLD = _flat(q, dtype).mul_(scale), _flat(k, dtype), _flat(v, dtype)
        hidden, out_BLD = _hidden(mask, causal, shape, q.device), torch.zeros_like(v_BLD)
        kept: tuple[Tensor, Tensor | None] | tuple[()] = ()
        for part in _parts(shape, lengths, q.device):
            q_bLD, k_bLD, v_bLD, out_bLD = (_of(x, part) for x in (q_BLD, k_BLD, v_BLD, out_BLD))
            probabilities = _probabilities(q_bLD, k_bLD, hidden, part)
            keep = None if dropout is None else dropout.keep(part.rows, part.width)
            torch.bmm(probabilities if keep is None else apply_mask(probabilities, keep), v_bLD, out=out_bLD)
            if short:
                pairs = (*shape[:3], shape[2])  # [N, H, L, L], by which an estimate of memory knows them
                kept = (probabilities.view(pairs), None if keep is None else keep.view(pairs))
        ctx.save_for_backward(q_BLD, k_BLD, v_BLD, *kept)
        ctx.lengths, ctx.hidden, ctx.scale, ctx.dropout = lengths, hidden, scale, dropout
        return (out_BLD.div_(1 - dropout.p) if dropout else out_BLD).to(q.dtype).view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_BLD, k_BLD, v_BLD, *kept = ctx.saved_tensors
        g, dropout, shape = gradients[0], ctx.dropout, gradients[0].shape
        g_BLD = _flat(g, q_BLD.dtype)
        g_BLD = g_BLD.div_(1 - dropout.p) if dropout else g_BLD
        gradients_BLD = tuple(torch.zeros_like(x) for x in (q_BLD, k_BLD, v_BLD))
        for part in _parts(shape, ctx.lengths, g.device):
            q_bLD, k_bLD, v_bLD, g_bLD = (_of(x, part) for x in (q_BLD, k_BLD, v_BLD, g_BLD))
            gq_bLD, gk_bLD, gv_bLD = (_of(x, part) for x in gradients_BLD)
            if kept:
                probabilities, keep = kept[0].flatten(0, 1), None if kept[1] is None else kept[1].flatten(0, 1)
            else:
                probabilities = _probabilities(q_bLD, k_bLD, ctx.hidden, part)
                keep = None if dropout is None else widened(dropout.keep(part.rows, part.width), probabilities.dtype)
            gp = torch.bmm(g_bLD, v_bLD.transpose(1, 2))
            dropped = probabilities
            if keep is not None:
                gp, dropped = apply_mask(gp, keep), apply_mask(probabilities, keep)
            torch.bmm(dropped.transpose(1, 2), g_bLD, out=gv_bLD)
            gs = torch._softmax_backward_data(gp, probabilities, -1, probabilities.dtype)
            torch.bmm(gs, k_bLD, out=gq_bLD)
            torch.bmm(gs.transpose(1, 2), q_bLD, out=gk_bLD)  # of the scaled q: the scale is in it
        gradients_BLD[0].mul_(ctx.scale)
        gq, gk, gv = (each.to(g.dtype).view(shape) for each in gradients_BLD)
        return gq, gk, gv, None, None, None, None, None


def _parts(shape: torch.Size, lengths: tuple[int, ...], device: torch.device) -> Iterator[_Part]:
    """Short sequences all at once; of long ones as many rows as are a piece."""
    count, heads, length, _ = shape
    rows, piece = count * heads, _PIECE[device.type]
    if length <= SHORT:
        yield _Part(slice(0, rows), length, None)
    elif device.type != "cpu":
        size = max(1, piece // length**2)
        yield from (_Part(slice(first, first + size), length, None) for first in range(0, rows, size))
    else:
        for sequence, real in enumerate(lengths):
            width = min(length, -(-real // _GRID) * _GRID)
            size = max(1, piece // width**2)
            for first in range(0, heads, size):
                start = sequence * heads
                yield _Part(slice(start + first, start + min(first + size, heads)), width, real)


def _of(x_BLD: Tensor, part: _Part) -> Tensor:
    """[b, W, D]"""
    return x_BLD[part.rows, : part.width]


def _probabilities(q_bLD: Tensor, k_bLD: Tensor, hidden: _Hidden, part: _Part) -> Tensor:
    """[b, W, W]"""
    scores = torch.bmm(q_bLD, k_bLD.transpose(1, 2))
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
