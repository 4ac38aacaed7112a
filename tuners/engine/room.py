"""The memory of a pack: which seats fit into it, and how large a forward may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tuners.engine.base import Base
from tuners.engine.estimate import Footprint, Foresight, Load, counting_kept, step_tokens
from tuners.engine.language import CHUNK_BYTES, LOGITS
from tuners.engine.layout import Layout, training_rows
from tuners.engine.plain_attention import SHORT
from tuners.engine.seat import Seat
from tuners.engine.slots import trained
from tuners.engine.types import AnyExample, BaseSpec, SeatSpec
from tuners.errors import NoRoomError
from tuners.needs import ACTIVATIONS, MOST_TOKENS, PROBE_TOKENS, Need, advice, row_bytes, size, told

_ALLOCATOR_SAYS = "DefaultCPUAllocator: can't allocate memory"


class Room:
    """Belongs to one pack; made when its base is loaded and no seat is there."""

    def __init__(self, base: Base, *, max_tokens: int | None, limit: int | None, packs: int) -> None:
        self._base, self._limit, self._packs = base, limit, packs
        affordable = max(PROBE_TOKENS, ACTIVATIONS // base.activation_bytes)
        self._most = max_tokens or min(MOST_TOKENS[base.device.type], affordable)
        self._fits = self._most
        logits = LOGITS * CHUNK_BYTES if base.spec.language else 0
        self._foresight = Foresight(base.device, more=base.spec.kept_bytes + logits)
        self._loads: dict[str, Load] = {}
        self._specs: dict[str, SeatSpec] = {}
        self._measured: dict[str, float] = {}

    @property
    def max_tokens(self) -> int:
        """Of one forward; a longer sequence goes alone."""
        return min(self._most, self._fits)

    @property
    def footprint(self) -> Footprint:
        """Foreseen for the seats that are in."""
        return self._foresight.footprint(self._loads.values(), self.max_tokens)

    @property
    def need(self) -> Need | None:
        """What the seats that are in take, in its parts; None where there are none."""
        return self._need(self._loads, self._specs) if self._loads else None

    def take(self, seat: Seat) -> None:
        """Count a seat in. Raises NoRoomError where it does not fit beside the others."""
        loads = self._loads | {seat.spec.name: self._load(seat)}
        if self._limit is not None:
            fits = self._tokens_within(self._limit, loads)
            if fits < max(load.longest for load in loads.values()):
                raise NoRoomError(self._refusal(seat, loads, self._limit))
            self._fits = min(self._most, fits)
        self._loads, self._specs[seat.spec.name] = loads, seat.spec

    def give_back(self, name: str) -> None:
        """A seat has left."""
        del self._loads[name], self._specs[name]
        if self._limit is not None and self._loads:
            self._fits = min(self._most, self._tokens_within(self._limit, self._loads))

    def halve(self) -> None:
        """Smaller forwards from now on: memory has run out."""
        self._most = max(1, self.max_tokens // 2)

    def _tokens_within(self, limit: int, loads: Mapping[str, Load]) -> int:
        # All workers cut a step alike: the one with the least room decides.
        return min(self._base.group.gather(self._foresight.tokens_within(limit, loads.values(), most=self._most)))

    def _load(self, seat: Seat) -> Load:
        spec = seat.spec
        mean, variance = step_tokens(spec.train_set.lengths, seat.schedule.batch)
        # A rank changes little of what a token keeps; what is targeted and dropped, and how long sequences are, does.
        kind = f"{spec.tuner.model_dump_json(exclude={'rank', 'alpha'})} {round(math.log2(mean / seat.schedule.batch))}"
        if kind not in self._measured:
            self._measured[kind] = self._token_bytes(seat)
        base, row = self._base, seat.row
        itemsize, alone, copied = base.trained_dtype.itemsize, base.spec.trained, base.spec.beside
        bank, bank_8bit = (
            row_bytes(row.width, count, base.device.type, itemsize, alone=alone, copied=copied)
            for count in (row.quantised, row.large)
        )
        longest = int(spec.train_set.lengths.max())
        return Load(bank, bank_8bit, mean, variance, longest, self._measured[kind], base.states_bytes)

    def _token_bytes(self, seat: Seat) -> float:
        """What a token keeps, by a forward of the first examples; largest over the workers."""
        examples = list(seat.batch().examples)
        while len(examples) > 1 and sum(len(example.ids) for example in examples) > PROBE_TOKENS:
            examples = examples[: len(examples) // 2]
        layout = self._layout(seat, examples)
        alone = trained([(seat.slots, seat.side)], grouped=False)
        with counting_kept(self._base.tensors) as kept:
            pooled_NI = self._base.pooled(layout, alone, training=True)
            found = kept()
        del pooled_NI
        plain = found.plain
        if self._base.spec.beside:  # a copy of what is trained is kept once, whatever the tokens
            plain = max(0, plain - seat.row.size * self._base.trained_dtype.itemsize)
        tokens = sum(len(example.ids) for example in examples)
        typical = _typical(seat)
        longer = _pairs(self._layout(seat, typical)) / sum(len(example.ids) for example in typical)
        return max(self._base.group.gather(plain / tokens + found.squares / _pairs(layout) * longer))

    def _layout(self, seat: Seat, examples: Sequence[AnyExample]) -> Layout:
        rows = training_rows(examples, seed=seat.spec.train.seed, step=0, first=0, answers=seat.head.answers)
        return self._base.laid_out([rows])

    def _refusal(self, seat: Seat, loads: dict[str, Load], limit: int) -> str:
        least = self._foresight.footprint(loads.values(), 0)
        need = self._need(loads, self._specs | {seat.spec.name: seat.spec})
        return (
            f"seat {seat.spec.name!r} does not fit: with {_seats(len(loads))} the pack takes {size(least.peak)} "
            f"(base and process {size(least.fixed)}, seats {size(least.bank)}, a forward of the longest sequence "
            f"{size(least.activations)}), and may take {size(limit)}; {told(advice(need, limit))}"
        )

    def _need(self, loads: Mapping[str, Load], specs: Mapping[str, SeatSpec]) -> Need:
        """What was measured; only what would be set otherwise is reckoned."""
        base, seats = self._base, list(loads.values())
        found, token = self._foresight.footprint(seats, 0), self._foresight.token_bytes(seats)
        ranks = [rank for spec in specs.values() if (rank := getattr(spec.tuner, "rank", None))]
        return Need(
            process=max(0, found.fixed - base.held_bytes - base.spec.kept_bytes),
            base=base.held_bytes,
            seat=found.bank // len(seats),
            token=token,
            tokens=sum(load.tokens for load in seats) / len(seats),
            longest=max(load.longest for load in seats),
            forward=self.max_tokens,
            max_length=max(spec.train.max_length for spec in specs.values()),
            seats=len(seats),
            packs=self._packs,
            parameters=base.parameters,
            recomputed=base.recomputed_bytes(token),
            quantised=base.quantised_bytes,
            quantised_by=_quantised_by(base.spec),
            adapter=row_bytes(base.adapter_parameters, 0, base.device.type, base.trained_dtype.itemsize)
            if base.spec.trained else None,
            seat_8bit=sum(load.bank_8bit for load in seats) // len(seats),
            rank=max(ranks, default=None),
            kept=base.spec.kept_bytes,
        )  # fmt: skip


def _typical(seat: Seat) -> list[AnyExample]:
    """A batch of all lengths that there are, from the shortest to the longest; of one example the longest."""
    lengths = seat.spec.train_set.lengths
    order, batch = np.argsort(lengths, kind="stable"), min(seat.schedule.batch, len(lengths))
    places = np.linspace(len(order) - 1, 0, batch).round().astype(np.int64)
    return [seat.spec.train_set[int(index)] for index in order[places]]


def _pairs(layout: Layout) -> int:
    """Of tokens of the same sequence, as attention pads them, of which a value may be kept."""
    return max(1, sum(bucket.count * bucket.length**2 for bucket in layout.buckets if bucket.length <= SHORT))


def _quantised_by(spec: BaseSpec) -> str:
    if spec.dequantised_once:
        return "tuner.dequantise: step"
    return "tuner.quantise: true" if spec.beside else "tuner.method: qlora"


def ran_out(error: RuntimeError) -> bool:
    """Whether an allocation has failed: torch has a class for it on devices only."""
    return isinstance(error, torch.OutOfMemoryError) or _ALLOCATOR_SAYS in str(error)


def _seats(count: int) -> str:
    return "1 seat" if count == 1 else f"{count} seats"
