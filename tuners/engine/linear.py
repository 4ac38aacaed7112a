"""A backbone's linear and dropout layers, wrapped in place: one GEMM for every seat, then each seat's own part."""

# T tokens, I in, O out

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tuners.engine.context import Context, LayerRows
from tuners.engine.gemm import back, linear
from tuners.engine.rows import gather, scatter
from tuners.engine.slots import Slots
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


class _Packed(torch.autograd.Function):
    """y = x W^T + b for all rows at once, then what each seat trains on its own rows.

    The seats' gradients are added to their banks here; only x's goes through autograd. One seat's rows are never
    multiplied into another's, so that a NaN stays where it is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_TI: Tensor,
        anchor: Tensor,  # noqa: ARG004
        site: PackedLinear,
        slots: Slots | None,
        rows: LayerRows,
    ) -> Tensor:
        y_TO = linear(x_TI, site.weight.dense(), site.bias)
        kept = slots.forward(rows, x_TI, y_TO) if slots is not None else ()
        # Where nobody trains, only the shape is needed, which the gradient has.
        ctx.save_for_backward(*((x_TI, *kept) if slots is not None else ()))
        ctx.site, ctx.slots, ctx.rows = site, slots, rows
        return y_TO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        g_TO = gradients[0]
        gx_TI = back(g_TO, ctx.site.weight.dense()) if ctx.needs_input_grad[0] else None
        if ctx.slots is not None:
            x_TI, *kept = ctx.saved_tensors
            ctx.slots.backward(ctx.rows, tuple(kept), x_TI, g_TO, gx_TI)
        return gx_TI, None, None, None, None


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

    def _rows(self, x_TI: Tensor) -> Tensor:
        """[T, O]"""
        context = self.context
        rows = LayerRows(context.layout, self.index, self.in_features, self.pooled_only)
        slots = context.slots.get(self.index)
        # Untrained layers go through the function too: autograd would keep a quantised weight's buffer.
        anchor = context.anchor if context.uniform or slots is not None else None
        out: Tensor = _Packed.apply(x_TI, anchor, self, slots, rows)  # type: ignore[no-untyped-call]  # torch's apply is untyped
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
        keep = LayerRows(self.context.layout, self.index, x.shape[-1], pooled=False).keep(self.p)
        assert keep is not None
        return masked(x, keep[None], self.p)
