"""A backbone's linear and dropout layers, wrapped in place: one GEMM for every seat, then each seat's own part."""

# T tokens, I in, O out

from __future__ import annotations

from itertools import chain, islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tuners.engine.context import Context, Slot
from tuners.engine.gemm import back, linear
from tuners.engine.rows import gather, scatter
from tuners.engine.streams import masked


class Weight(Protocol):
    """A frozen weight, however it is kept: a module, whose parameters can be sharded."""

    def dense(self) -> Tensor:
        """[O, I]; may lie in a buffer that the next call of any weight overwrites."""


class DenseWeight(nn.Module):
    """A weight kept as it is."""

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_OI, requires_grad=False)

    def dense(self) -> Tensor:
        """[O, I]"""
        return self.weight


class _Grouped(torch.autograd.Function):
    """y = x W^T + b for all rows at once, then each seat's slot on its own rows.

    The seats' gradients are added to their banks here; only x's goes through autograd. One seat's rows are never
    multiplied into another's, so that a NaN stays where it is.
    """

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, anchor: Tensor, site: PackedLinear) -> Tensor:  # noqa: ARG004
        y_TO = linear(x_TI, site.weight.dense(), site.bias)
        seats, kept = [], []
        for slot, start, end in site.active():
            keep = site.keep(slot.dropout, start, end) if slot.dropout else None
            kept.append(slot.forward(x_TI[start:end], y_TO[start:end], keep))
            seats.append((slot, start, end, len(kept[-1])))
        # Where nobody trains, only the shape is needed, which the gradient has.
        ctx.save_for_backward(*((x_TI, *chain.from_iterable(kept)) if kept else ()))
        ctx.site, ctx.seats = site, seats
        return y_TO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        g_TO = gradients[0]
        gx_TI = back(g_TO, ctx.site.weight.dense()) if ctx.needs_input_grad[0] else None
        saved: tuple[Any, ...] = ctx.saved_tensors
        rest = iter(saved[1:])
        for slot, start, end, count in ctx.seats:
            kept, gx_kI = tuple(islice(rest, count)), None if gx_TI is None else gx_TI[start:end]
            slot.backward(kept, saved[0][start:end], g_TO[start:end], gx_kI)
        return gx_TI, None, None


class PackedLinear(nn.Module):
    """A frozen linear layer at which seats may train something: [1, T, I] -> [1, T, O]."""

    def __init__(self, name: str, index: int, layer: nn.Linear, weight: Weight, context: Context) -> None:
        super().__init__()
        self.name, self.index, self.weight, self.context = name, index, weight, context
        self.bias = layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.pooled_only = False
        """After the last attention nothing reads the tokens that are not pooled: their outputs are left at zero."""

    def forward(self, x: Tensor) -> Tensor:
        """[1, T, I] -> [1, T, O]"""
        self.context.called(self)
        x_TI, places = x.reshape(-1, self.in_features), self.context.layout.pooled
        if self.pooled_only:
            y_TO = scatter(self._rows(gather(x_TI, places)), places, x_TI.shape[0])
        else:
            y_TO = self._rows(x_TI)
        return y_TO.view(*x.shape[:-1], self.out_features)

    def active(self) -> list[tuple[Slot, int, int]]:
        """The seats that train something here, with their rows."""
        return self.context.active(self.index, pooled=self.pooled_only)

    def keep(self, p: float, start: int, end: int) -> Tensor | None:
        """int16 [T, I] for the rows start:end; None in an evaluation."""
        return self.context.keep(self.index, self.in_features, p, start, end, pooled=self.pooled_only)

    def _rows(self, x_TI: Tensor) -> Tensor:
        """[T, O]"""
        # Untrained layers go through the function too: autograd would keep a quantised weight's buffer.
        anchor = self.context.anchor if self.context.uniform or self.active() else None
        out: Tensor = _Grouped.apply(x_TI, anchor, self)  # type: ignore[no-untyped-call]  # torch's apply is untyped
        return out


class PackedDropout(nn.Module):
    """The base's own dropout, drawn from the seats' streams: [1, T, W] -> [1, T, W]."""

    def __init__(self, index: int, p: float, context: Context) -> None:
        super().__init__()
        self.index, self.p, self.context = index, p, context

    def forward(self, x: Tensor) -> Tensor:
        """[1, T, W] -> [1, T, W]"""
        if not self.training or not self.p:
            return x
        keep = self.context.keep(self.index, x.shape[-1], self.p)
        assert keep is not None
        return masked(x, keep[None], self.p)
