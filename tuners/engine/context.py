"""What the layers of a packed backbone read while a forward or its backward runs."""

# S seats, T tokens, N sequences, I in, O out

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from tuners.engine.layout import Layout
from tuners.engine.streams import keep_rows

Kept = tuple[Tensor | None, ...]


class Slot(Protocol):
    """One seat's trained part at one linear layer (a method's `layer.py` makes them)."""

    @property
    def dropout(self) -> float:
        """Of the adapter's input."""

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> Kept:
        """Add to y in place; returns what `backward` wants to have kept."""

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Add to the seat's gradients, and to x's where there is one."""


SlotsBySite = Mapping[int, Sequence[tuple[int, Slot]]]
"""By the linear layer's number: (place of the seat in the layout, its slot)."""


class Context:
    """Belongs to one base; set for the length of one forward and backward."""

    def __init__(self, device: torch.device) -> None:
        # Without an input that requires grad, autograd would not record the first layer's sites.
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.uniform = False
        """Record every layer, whoever trains there: workers that share a base gather its layers in the same order."""
        self._layout: Layout | None = None
        self._slots: SlotsBySite = {}
        self._calls: list[object] | None = None

    @contextmanager
    def running(self, layout: Layout, slots: SlotsBySite) -> Iterator[None]:
        """For one forward and its backward."""
        assert self._layout is None, "a base runs one forward at a time"
        self._layout, self._slots = layout, slots
        try:
            yield
        finally:
            self._layout, self._slots = None, {}

    @contextmanager
    def recalled(self, layout: Layout, slots: SlotsBySite) -> Iterator[None]:
        """For a part of a forward that is computed again in its backward."""
        before = self._layout, self._slots
        self._layout, self._slots = layout, slots
        try:
            yield
        finally:
            self._layout, self._slots = before

    @property
    def slots(self) -> SlotsBySite:
        """Of the forward that runs."""
        return self._slots

    @property
    def layout(self) -> Layout:
        """Of the forward that runs."""
        assert self._layout is not None, "a packed backbone is called through its base"
        return self._layout

    @property
    def row_keys(self) -> Tensor:
        """int64 [N] the dropout keys of the sequences."""
        assert self.layout.row_keys is not None, "an evaluation draws nothing"
        return self.layout.row_keys

    @contextmanager
    def tracing(self) -> Iterator[list[object]]:
        """What the layers report while a forward runs, in their order."""
        self._calls = []
        try:
            yield self._calls
        finally:
            self._calls = None

    def called(self, layer: object) -> None:
        """A layer reports its call; attention reports None."""
        if self._calls is not None:
            self._calls.append(layer)

    def active(self, site: int, *, pooled: bool) -> list[tuple[Slot, int, int]]:
        """The seats that train something at this layer: (slot, first row, row after the last).

        Rows are tokens, or sequences where only `pooled` tokens are computed.
        """
        spans = self.layout.row_spans if pooled else self.layout.token_spans
        slots = self._slots.get(site, ())
        return [(slot, *spans[seat]) for seat, slot in slots if spans[seat][0] < spans[seat][1]]

    def keep(
        self, site: int, width: int, p: float, start: int = 0, end: int | None = None, *, pooled: bool = False
    ) -> Tensor | None:
        """int16 [T, W] for the rows start:end: what dropout keeps; None in an evaluation."""
        keys = self.layout.pooled_keys if pooled else self.layout.token_keys
        return None if keys is None else keep_rows(keys[start:end], site, width, p)
