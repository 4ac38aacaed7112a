"""What the layers of a packed backbone read while a forward or its backward runs."""

# S seats, T tokens, N sequences, I in

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuners.engine.cache import Cache
from tuners.engine.layout import Layout
from tuners.engine.slots import SeatRows, SlotsBySite
from tuners.engine.streams import keep_rows


@dataclass(frozen=True)
class LayerRows:
    """The rows of one layer's input: all tokens, or those that are pooled where only they are computed."""

    layout: Layout
    site: int
    width: int
    pooled: bool

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        return self.layout.pooled_spans if self.pooled else self.layout.token_spans

    @property
    def ends(self) -> Tensor:
        return self.layout.pooled_ends if self.pooled else self.layout.token_ends

    @property
    def seats(self) -> Tensor:
        return self.layout.pooled_seats if self.pooled else self.layout.token_seats

    def keep(self, p: float | Tensor, start: int = 0, end: int | None = None) -> Tensor | None:
        keys = self.layout.pooled_keys if self.pooled else self.layout.token_keys
        return None if keys is None else keep_rows(keys[start:end], self.site, self.width, p)


class Context:
    """Belongs to one base; set for the length of one forward and backward."""

    def __init__(self, device: torch.device, *, varlen: bool) -> None:
        self.varlen = varlen
        """Whether attention has a kernel for sequences that lie end to end."""
        # Without an input that requires grad, autograd would not record the first layer's sites.
        self.anchor = torch.zeros((), device=device, requires_grad=True)
        self.uniform = False
        """Record every layer, whoever trains there: workers that share a base gather its layers in the same order."""
        self.cache: Cache | None = None
        """Of sequences that are being gone on with."""
        self._layout: Layout | None = None
        self._slots: SlotsBySite = {}
        self._calls: list[object] | None = None

    @contextmanager
    def running(self, layout: Layout, slots: SlotsBySite, cache: Cache | None = None) -> Iterator[None]:
        """For one forward and its backward."""
        assert self._layout is None, "a base runs one forward at a time"
        self._layout, self._slots, self.cache = layout, slots, cache
        try:
            yield
        finally:
            self._layout, self._slots, self.cache = None, {}, None

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


if TYPE_CHECKING:

    def _rows(rows: LayerRows) -> SeatRows:
        return rows
