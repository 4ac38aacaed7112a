"""The side network of quantised side tuning, for several seats at once.

    s_0 = down_0(h_0);  s_i = layer_i((1 - z_i) down_i(h_i) + z_i s_(i-1)),  z_i = sigmoid of a learnt number
    out = (1 - sigmoid(a)) up(s_L) + sigmoid(a) h_L,  a = 1 at first

(Zhang et al. 2024, arXiv 2401.07159, section 3.2.) A layer is a small one of the kind that today's decoders have: norm,
attention, norm, gated feed-forward. Ours differs from the paper's in three points. States are brought to a mean square
of 1 before `down`: those of a base's layers differ a thousandfold in size, and its few largest features would drown the
others. The side layers add no positions, which the base's states have in them. And `up` begins at 0, so that a network
begins with the base's own output.
"""

# L layers, S seats, T tokens, P pooled tokens, I features of the base, W of the side, F inner, R rank, H heads

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tuners.engine.method import Segment, copied, normal, zeros
from tuners.engine.slots import Attend
from tuners.qst.shape import Shape

_EPSILON = 1e-6


def segments(shape: Shape) -> tuple[Segment, ...]:
    """All that is trained but the head."""
    found = [segment for place in range(shape.layers + 1) for segment in _down(shape, place)]
    found += [segment for layer in range(1, shape.layers + 1) for segment in _layer(shape, layer)]
    return (*found, _ones("norm", shape.width), Segment("up", (shape.hidden, shape.width), zeros), _ones("a", 1))


def _down(shape: Shape, place: int) -> list[Segment]:
    if not shape.rank:
        return []
    # Both drawn: with one of them at 0, and `up` at 0, no gradient would ever come through.
    return [
        Segment(f"down.{place}.in", (shape.rank, shape.hidden), normal(shape.hidden**-0.5)),
        Segment(f"down.{place}.out", (shape.width, shape.rank), normal(shape.rank**-0.5)),
    ]


def _layer(shape: Shape, layer: int) -> list[Segment]:
    width, inner = shape.width, shape.inner
    # As usual for residual layers: their sum stays of one size whatever their number.
    depth = (2 * shape.layers) ** -0.5
    return [
        Segment(f"layer.{layer}.z", (1,), zeros, decay=False),
        _ones(f"layer.{layer}.attention_norm", width),
        Segment(f"layer.{layer}.qkv", (3 * width, width), normal(width**-0.5)),
        Segment(f"layer.{layer}.attention_out", (width, width), normal(depth * width**-0.5)),
        _ones(f"layer.{layer}.feed_norm", width),
        Segment(f"layer.{layer}.gate_up", (2 * inner, width), normal(width**-0.5)),
        Segment(f"layer.{layer}.feed_out", (width, inner), normal(depth * inner**-0.5)),
    ]


class SideNetwork:
    """One seat's."""

    def __init__(self, shape: Shape, parameters: Mapping[str, Tensor]) -> None:
        self.kind = shape
        self.parameters = parameters

    @classmethod
    def together(
        cls, sides: Sequence[SideNetwork], states: Sequence[Tensor], attend: Attend, pooled_P: Tensor
    ) -> Tensor:
        """[S, P, I]"""
        return _Together(sides, states[0].dtype).run(states, attend, pooled_P)


class _Together:
    def __init__(self, sides: Sequence[SideNetwork], dtype: torch.dtype) -> None:
        self._shape, self._sides, self._dtype = sides[0].kind, sides, dtype

    def run(self, states: Sequence[Tensor], attend: Attend, pooled_P: Tensor) -> Tensor:
        """[S, P, I]"""
        s_STW = self._down(0, states[0])
        for layer in range(1, self._shape.layers + 1):
            z_S11 = torch.sigmoid(self._get(f"layer.{layer}.z"))[:, None]
            s_STW = torch.lerp(self._down(layer, states[layer]), s_STW, z_S11)
            s_STW = self._attention(layer, s_STW, attend)
            s_STW = self._feed_forward(layer, s_STW)
        s_SPW = _rms(s_STW.index_select(1, pooled_P)) * self._get("norm")[:, None]
        share_S11 = torch.sigmoid(self._get("a"))[:, None]
        return torch.lerp(self._product(s_SPW, "up"), states[-1].index_select(0, pooled_P), share_S11)

    def _down(self, place: int, state_TI: Tensor) -> Tensor:
        """[S, T, W]"""
        shape, seats = self._shape, len(self._sides)
        normed_TI = _rms(state_TI)
        if not shape.rank:
            pooled_TW = functional.adaptive_avg_pool1d(normed_TI[None], shape.width)[0]
            return pooled_TW.expand(seats, -1, -1)
        # The seats' first factors below one another: one product over the wide side for all.
        all_QI = self._get(f"down.{place}.in").flatten(0, 1)
        narrow_STR = functional.linear(normed_TI, all_QI).view(-1, seats, shape.rank).transpose(0, 1)
        return self._product(narrow_STR, f"down.{place}.out")

    def _attention(self, layer: int, s_STW: Tensor, attend: Attend) -> Tensor:
        seats, tokens, width = s_STW.shape
        heads = self._shape.heads
        x_STW = _rms(s_STW) * self._get(f"layer.{layer}.attention_norm")[:, None]
        qkv = self._product(x_STW, f"layer.{layer}.qkv").view(seats, tokens, 3, heads, width // heads)
        # A seat's heads are heads like others.
        q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in qkv.unbind(2))
        out = attend(layer, q, k, v).view(seats, heads, tokens, -1).transpose(1, 2).reshape(seats, tokens, width)
        return s_STW + self._product(out, f"layer.{layer}.attention_out")

    def _feed_forward(self, layer: int, s_STW: Tensor) -> Tensor:
        x_STW = _rms(s_STW) * self._get(f"layer.{layer}.feed_norm")[:, None]
        gate_STF, up_STF = self._product(x_STW, f"layer.{layer}.gate_up").chunk(2, 2)
        return s_STW + self._product(functional.silu(gate_STF) * up_STF, f"layer.{layer}.feed_out")

    def _product(self, x_STI: Tensor, name: str) -> Tensor:
        """[S, T, O] each seat's rows by its own weight."""
        return torch.bmm(x_STI, self._get(name).transpose(1, 2))

    def _get(self, name: str) -> Tensor:
        """[S, ...]"""
        return torch.stack([side.parameters[name] for side in self._sides]).to(self._dtype)


def _rms(x: Tensor) -> Tensor:
    """[..., W] at a mean square of 1."""
    return functional.rms_norm(x, x.shape[-1:], eps=_EPSILON)


def _ones(name: str, size: int) -> Segment:
    return Segment(name, (size,), copied(torch.ones(size)), decay=False)
