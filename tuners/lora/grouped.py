"""LoRA of several seats at one layer in torch's grouped products: on a device a loop would cost a launch each."""

# S seats, T tokens, I in, O out, R the largest rank, rounded up

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import grouped_mm

from tuners.engine.slots import Kept, SeatRows
from tuners.engine.streams import apply_mask

if TYPE_CHECKING:
    from tuners.lora.layer import Bias, LoraSlot


class GroupedLora:
    """The adapters of all seats at one layer.

    A and B are copied for every forward into one piece of memory in the type that is computed in, ranks padded with
    zeros to a multiple of 8, as the kernels want it. What is padded in A meets what is padded in B: it stays zero.
    """

    def __init__(self, slots: Sequence[tuple[int, LoraSlot]], seats: int) -> None:
        self._places, self._slots = zip(*slots, strict=True)
        first: LoraSlot = self._slots[0]
        self._rank = -(-max(slot.a.shape[0] for slot in self._slots) // 8) * 8
        self._shape = (seats, self._rank, first.a.shape[1], first.b.shape[0])
        by_seat = dict(slots)
        device = first.a.device

        def per_seat(value: Callable[[LoraSlot], float]) -> Tensor:
            values = [value(by_seat[seat]) if seat in by_seat else 0.0 for seat in range(seats)]
            return torch.tensor(values, dtype=torch.float64).to(device)

        self._dropout_S = per_seat(lambda slot: slot.dropout)
        self._scale_S = per_seat(lambda slot: slot.scale)
        self._drops = any(slot.dropout for slot in self._slots)

    def forward(self, rows: SeatRows, x_TI: Tensor, y_TO: Tensor) -> tuple[Tensor | None, ...]:
        """Adds to y; keeps h [T, R], the mask, and A and B as they were."""
        keep_TI = rows.keep(self._dropout_S.index_select(0, rows.seats)) if self._drops else None
        a_SRI, b_SOR = self._stacked(x_TI.dtype)
        x_TI = x_TI if keep_TI is None else apply_mask(x_TI, keep_TI)
        h_TR = grouped_mm(x_TI, a_SRI.transpose(1, 2), offs=rows.ends).mul_(self._scales(rows, keep_TI, x_TI.dtype))
        y_TO.add_(grouped_mm(h_TR, b_SOR.transpose(1, 2), offs=rows.ends))
        for bias, start, end in self._biased(rows):
            bias.add_to(y_TO[start:end])
        return h_TR, keep_TI, a_SRI, b_SOR

    def backward(self, rows: SeatRows, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Adds to each seat's gradients, and to x's."""
        h_TR, keep_TI, a_SRI, b_SOR = kept
        assert h_TR is not None
        assert a_SRI is not None
        assert b_SOR is not None
        for bias, start, end in self._biased(rows):
            bias.learn_from(g_TO[start:end])
        x_TI = x_TI if keep_TI is None else apply_mask(x_TI, keep_TI)
        gh_TR = grouped_mm(g_TO, b_SOR, offs=rows.ends).mul_(self._scales(rows, keep_TI, g_TO.dtype))
        self._add([slot.gb for slot in self._slots], grouped_mm(g_TO.t(), h_TR, offs=rows.ends))
        self._add([slot.ga for slot in self._slots], grouped_mm(gh_TR.t(), x_TI, offs=rows.ends))
        if gx_TI is not None:
            gx_kI = grouped_mm(gh_TR, a_SRI, offs=rows.ends)
            gx_TI.add_(gx_kI if keep_TI is None else apply_mask(gx_kI, keep_TI))

    def _biased(self, rows: SeatRows) -> list[tuple[Bias, int, int]]:
        placed = zip(self._places, self._slots, strict=True)
        return [(slot.bias, *rows.spans[place]) for place, slot in placed if slot.bias is not None]

    def _stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A [S, R, I] and B [S, O, R] as they are now."""
        seats, rank, inner, outer = self._shape
        a_SRI = self._dropout_S.new_zeros((seats, rank, inner), dtype=dtype)
        b_SOR = self._dropout_S.new_zeros((seats, outer, rank), dtype=dtype)
        placed = list(zip(self._places, self._slots, strict=True))
        torch._foreach_copy_([a_SRI[k, : len(slot.a)] for k, slot in placed], [slot.a for _, slot in placed])
        torch._foreach_copy_([b_SOR[k, :, : len(slot.a)] for k, slot in placed], [slot.b for _, slot in placed])
        return a_SRI, b_SOR

    def _add(self, gradients: list[Tensor], values_S: Tensor) -> None:
        """Each seat's own part; what belongs to padded ranks is zero."""
        parts = [values_S[k, : len(g), : g.shape[1]] for k, g in zip(self._places, gradients, strict=True)]
        torch._foreach_add_(gradients, [part.to(g.dtype) for g, part in zip(gradients, parts, strict=True)])

    def _scales(self, rows: SeatRows, keep_TI: Tensor | None, dtype: torch.dtype) -> Tensor:
        """[T, 1]"""
        scale_S = self._scale_S if keep_TI is None else self._scale_S / (1 - self._dropout_S)
        return scale_S.to(dtype).index_select(0, rows.seats)[:, None]
