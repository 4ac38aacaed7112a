"""Moving rows between the orders that a step has them in. Nothing is ever added up."""

# T rows of the larger side, N of the smaller, M places in the buckets, W elements

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuners.engine.layout import Layout


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NW: Tensor, places_N: Tensor, rows: int) -> Tensor:
        ctx.places = places_N
        return x_NW.new_zeros(rows, x_NW.shape[1]).index_copy_(0, places_N, x_NW)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.places), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TW: Tensor, places_N: Tensor) -> Tensor:
        ctx.places, ctx.rows = places_N, x_TW.shape[0]
        return x_TW.index_select(0, places_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        g_NW = gradients[0]
        return g_NW.new_zeros(ctx.rows, g_NW.shape[1]).index_copy_(0, ctx.places, g_NW), None


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sources: Tensor, back: Tensor, unread: Tensor) -> Tensor:
        ctx.back, ctx.unread = back, unread
        return x.index_select(0, sources)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # What only fills up is a copy that nobody reads: no gradient comes from it.
        return gradients[0].index_select(0, ctx.back).index_fill_(0, ctx.unread, 0), None, None, None


def padded(x_TW: Tensor, layout: Layout) -> Tensor:
    """[T, W] -> [M, W], the buckets' places; where a sequence is padded, a token of its own."""
    out: Tensor = _Moved.apply(x_TW, layout.sources, layout.places, layout.fillers)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


def unpadded(x_MW: Tensor, layout: Layout) -> Tensor:
    """[M, W] -> [T, W]; a filler gets what a token of its seat gets."""
    out: Tensor = _Moved.apply(x_MW, layout.places, layout.sources, layout.padding)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


def scatter(x_NW: Tensor, places_N: Tensor, rows: int) -> Tensor:
    """[N, W] -> [rows, W], zero elsewhere; the places differ from each other."""
    out: Tensor = _Scatter.apply(x_NW, places_N, rows)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


def gather(x_TW: Tensor, places_N: Tensor) -> Tensor:
    """[T, W] -> [N, W]; the places differ from each other."""
    out: Tensor = _Gather.apply(x_TW, places_N)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out
