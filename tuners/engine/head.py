"""A seat's head, and its loss: here the family's own layers after pooling; what generates is in `language`."""

# N sequences, I in, O out, C classes

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tuners.engine.families import Family, HeadLayer, head_dropout
from tuners.engine.layout import Layout
from tuners.engine.method import Fill, Segment, copied, leaf, normal, zeros
from tuners.engine.streams import keep_rows, masked
from tuners.engine.types import HeadSpec

_SITE = 1 << 20
"""Above every number of a backbone's module."""


class Judged(NamedTuple):
    """What a head makes of its seat's part of a forward."""

    losses: Tensor
    """[N], of the sequences; of answers [P], of their tokens."""
    logits: Tensor | None
    """[N, C]; None where they are the vocabulary's."""


class SeatHead(Protocol):
    """What a seat predicts with."""

    spec: HeadSpec
    answers: bool
    """Whether it predicts the tokens of answers."""
    saved: tuple[str, ...]
    """PEFT's modules_to_save."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What is trained, by its names in the whole model."""

    def bind(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> None:
        """Train the bank's own memory."""

    def judge(self, layout: Layout, seat: int, pooled_PI: Tensor, labels_N: Tensor) -> Judged:
        """The losses of a seat's part; `pooled_PI` and `labels_N` are the seat's own."""

    def tensors(self) -> dict[str, Tensor]:
        """What is exported, by its names there."""


class Head:
    """Of a class or a value. Trained with plain autograd: few parameters, and any family's layers."""

    answers = False

    def __init__(
        self, spec: HeadSpec, family: Family, config: Any, pretrained: Mapping[str, Tensor] | None = None
    ) -> None:
        """`pretrained`: by their names in the classification model, what begins as it is in the checkpoint."""
        self.spec, self.layers, self.saved = spec, family.head, family.saved
        self._pretrained = pretrained or {}
        self.dropout = head_dropout(config)
        self._width = int(config.hidden_size)
        self._std = float(getattr(config, "initializer_range", 0.02))
        self._parameters: dict[str, Tensor] = {}

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Named as in the classification model."""
        found = []
        for layer in self.layers:
            out = self.spec.outputs if layer is self.layers[-1] else self._width
            found.append(self._segment(f"{layer.path}.weight", (out, self._width), normal(self._std)))
            if layer.bias:
                found.append(self._segment(f"{layer.path}.bias", (out,), zeros))
        return tuple(found)

    def _segment(self, name: str, shape: tuple[int, ...], fill: Fill) -> Segment:
        known = self._pretrained.get(name)
        return Segment(name, shape, fill if known is None else copied(known), decay=len(shape) > 1)

    def bind(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> None:
        """Train the bank's own memory."""
        self._parameters = {each.name: leaf(theta[each.name], gradient[each.name]) for each in self.segments}

    def logits(self, pooled_NI: Tensor, row_keys_N: Tensor | None) -> Tensor:
        """[N, C] in the type that is trained; with dropout where there are keys to draw it by."""
        x_NI = pooled_NI.to(self._parameters[f"{self.layers[-1].path}.weight"].dtype)
        for number, layer in enumerate(self.layers):
            if layer.dropout and self.dropout and row_keys_N is not None:
                keep = keep_rows(row_keys_N, _SITE + number, x_NI.shape[1], self.dropout)
                x_NI = masked(x_NI, keep, self.dropout)
            x_NI = self._apply(layer, x_NI)
        return x_NI

    def judge(self, layout: Layout, seat: int, pooled_PI: Tensor, labels_N: Tensor) -> Judged:
        """With dropout where the layout has keys to draw it by."""
        low, high = layout.row_spans[seat]
        keys = layout.row_keys
        logits_NC = self.logits(pooled_PI, None if keys is None else keys[low:high])
        return Judged(self.losses(logits_NC, labels_N), logits_NC)

    def losses(self, logits_NC: Tensor, labels_N: Tensor) -> Tensor:
        """[N] cross entropy, or the squared error."""
        if self.spec.kind == "regression":
            return (logits_NC[:, 0] - labels_N.to(logits_NC.dtype)).square()
        return functional.cross_entropy(logits_NC, labels_N.long(), reduction="none")

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by their names in the classification model."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def _apply(self, layer: HeadLayer, x_NI: Tensor) -> Tensor:
        bias = self._parameters[f"{layer.path}.bias"] if layer.bias else None
        y_NO = functional.linear(x_NI, self._parameters[f"{layer.path}.weight"], bias)
        return _ACTIVATIONS[layer.activation](y_NO)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu, "none": lambda x: x}
