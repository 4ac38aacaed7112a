"""What seats train at one linear layer: each on its own rows, one by one or in a product for all."""

# S seats, T tokens, I in, O out

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from typing import Self

Kept = tuple[Tensor | None, ...]


class SeatRows(Protocol):
    """The rows of a layer's input in a forward."""

    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """[S] each seat's rows: the first, and the one after the last."""

    @property
    def ends(self) -> Tensor:
        """int32 [S] the row after each seat's last."""

    @property
    def seats(self) -> Tensor:
        """int64 [T] each row's seat."""

    def keep(self, p: float | Tensor, start: int = 0, end: int | None = None) -> Tensor | None:
        """int16 [T, I] for the rows start:end: what dropout keeps; None in an evaluation."""


class Slot(Protocol):
    """One seat's trained part at one linear layer (a method's `layer.py` makes them)."""

    keeps: ClassVar[int]
    """How many things `forward` keeps."""

    @property
    def dropout(self) -> float:
        """Of the adapter's input."""

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> Kept:
        """Add to y in place; returns what `backward` wants to have kept."""

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Add to the seat's gradients, and to x's where there is one."""

    @classmethod
    def grouped(cls, slots: Sequence[tuple[int, Self]], seats: int) -> Slots:
        """The same for slots of this class at one layer, in products for all; (place of the seat, its slot)."""


class Slots(Protocol):
    """All that is trained at one layer."""

    def forward(self, rows: SeatRows, x_TI: Tensor, y_TO: Tensor) -> Kept:
        """Add to y in place; returns what `backward` wants to have kept."""

    def backward(self, rows: SeatRows, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Add to the seats' gradients, and to x's where there is one."""


SlotsBySite = Mapping[int, Slots]
"""By the linear layer's number."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query, key, value), [H, T, D] each -> [H, T, D]: tokens see those of their own sequence, as in the base."""


class Side(Protocol):
    """One seat's network beside the base."""

    @property
    def kind(self) -> Hashable:
        """Those of the same kind run together."""

    @classmethod
    def together(cls, sides: Sequence[Self], states: Sequence[Tensor], attend: Attend, pooled_P: Tensor) -> Tensor:
        """What S seats make of the same tokens: the base's states, [T, I] for the embeddings and after each layer
        -> [S, P, I], in the place of the last ones, at the pooled tokens.
        """


Sides = tuple[Side, ...]
"""By the seat's place."""
Trained = SlotsBySite | Sides
"""What the seats of a forward train: at the base's layers or beside it."""


class OneByOne:
    """A loop over the seats: true ranks and no copies. The reference, and the fastest on a CPU."""

    def __init__(self, slots: Sequence[tuple[int, Slot]]) -> None:
        self._slots = tuple(slots)
        """(place of the seat in the layout, its slot)"""

    def forward(self, rows: SeatRows, x_TI: Tensor, y_TO: Tensor) -> Kept:
        kept: list[Tensor | None] = []
        for slot, start, end in self._present(rows):
            keep = rows.keep(slot.dropout, start, end) if slot.dropout else None
            kept += slot.forward(x_TI[start:end], y_TO[start:end], keep)
        return tuple(kept)

    def backward(self, rows: SeatRows, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        present = self._present(rows)
        rest = iter(kept)
        for slot, start, end in present:
            gx_kI = None if gx_TI is None else gx_TI[start:end]
            slot.backward(tuple(islice(rest, slot.keeps)), x_TI[start:end], g_TO[start:end], gx_kI)

    def _present(self, rows: SeatRows) -> list[tuple[Slot, int, int]]:
        return [(slot, *rows.spans[seat]) for seat, slot in self._slots if rows.spans[seat][0] < rows.spans[seat][1]]


def trained(seats: Sequence[tuple[Mapping[int, Slot], Side | None]], *, grouped: bool) -> Trained:
    """What these seats train, as a forward takes it in which they lie in this order: (at the layers, beside)."""
    sides = tuple(side for _, side in seats if side is not None)
    if sides:
        assert len(sides) == len(seats)
        return sides
    found: dict[int, list[tuple[int, Slot]]] = {}
    for place, (slots, _) in enumerate(seats):
        for site, slot in slots.items():
            found.setdefault(site, []).append((place, slot))
    return {site: together(own, len(seats), grouped=grouped) for site, own in found.items()}


def together(slots: Sequence[tuple[int, Slot]], seats: int, *, grouped: bool) -> Slots:
    """The slots of one layer, of `seats` seats in all; in products for all if `grouped` and they are of one kind."""
    kinds = {type(slot) for _, slot in slots}
    if grouped and len(kinds) == 1:
        return kinds.pop().grouped(slots, seats)
    return OneByOne(slots)
