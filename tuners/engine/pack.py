"""Many seats trained at once on one frozen base."""

# S seats, N sequences, C classes

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tuners.engine import evaluate, export
from tuners.engine.bank import Bank, gather, sum_gradients
from tuners.engine.base import Base
from tuners.engine.beside import content
from tuners.engine.deal import Part, forwards, together
from tuners.engine.estimate import Footprint
from tuners.engine.layout import training_rows
from tuners.engine.room import Room, ran_out
from tuners.engine.seat import Batch, Seat
from tuners.engine.slots import Trained, trained
from tuners.engine.state import SeatState
from tuners.engine.types import Evaluation, Progress, SeatSpec, StepReport
from tuners.errors import NoRoomError, SeatError
from tuners.needs import Need

_CONSTANT = 1e-6
"""Logits whose spread over a step's examples is at most this share of their size count as the same."""
_SMALL = 1e-3
"""Logits below it are all taken to be of this size."""

_log = logging.getLogger(__name__)


_Plain = tuple[float, list[list[float]], list[list[float]]]


@dataclass
class _Tally:
    """What a step's forwards found out about one seat."""

    loss: float = 0.0
    lowest: list[Tensor] = field(default_factory=list)
    """[C] each"""
    highest: list[Tensor] = field(default_factory=list)

    def plain(self) -> _Plain:
        """To be sent."""
        return self.loss, [values.tolist() for values in self.lowest], [values.tolist() for values in self.highest]

    @classmethod
    def joined(cls, parts: Sequence[_Plain], dtype: torch.dtype) -> _Tally:
        """What all workers found out."""
        losses, lowest, highest = zip(*parts, strict=True)
        low, high = ([torch.tensor(row, dtype=dtype) for part in each for row in part] for each in (lowest, highest))
        return cls(sum(losses), low, high)

    def constant(self, examples: int) -> bool:
        """Whether all examples got the same logits; never where they are the vocabulary's."""
        if not self.lowest:
            return False
        lowest, highest = torch.stack(self.lowest).amin(0), torch.stack(self.highest).amax(0)
        spread = float((highest - lowest).max())
        size = max(_SMALL, float(lowest.abs().max()), float(highest.abs().max()))
        return examples > 1 and spread <= _CONSTANT * size


class Pack:
    """Seats join and leave between steps; a step is one optimiser step of each that is not finished."""

    def __init__(self, base: Base, *, max_tokens: int | None = None, memory: int | None = None, packs: int = 1) -> None:
        """`max_tokens` bounds one training forward; it changes no result, only what is in memory at once.

        `memory` bounds the bytes that the process (or, on a device, what is allocated there) may take: forwards are
        made as small as that needs, and a seat that would not fit is refused, saying what would. `packs`: how many
        of this base share the machine whose part this is.
        """
        self.base = base
        self._room = Room(base, max_tokens=max_tokens, limit=memory, packs=packs)
        self._seats: dict[str, Seat] = {}
        self._banks: tuple[Bank, ...] = ()
        self._settled = True
        self._trained: dict[tuple[str, ...], Trained] = {}

    @property
    def seats(self) -> tuple[str, ...]:
        """Names, in the order of joining; finished and diverged ones too, until they leave."""
        return tuple(self._seats)

    @property
    def max_tokens(self) -> int:
        """Of one forward: the bound that holds now."""
        return self._room.max_tokens

    @property
    def footprint(self) -> Footprint:
        """The memory that the present seats are foreseen to take."""
        return self._room.footprint

    @property
    def need(self) -> Need | None:
        """The same in its parts, as far as it has been measured; None without a seat."""
        return self._room.need

    def halve_forwards(self) -> None:
        """Memory has run out."""
        self._room.halve()

    def join(self, spec: SeatSpec, state: SeatState | None = None) -> None:
        """Take a seat, from its beginning or from a state.

        Raises SeatError or TunerError, naming what would fit, if the seat does not fit this base, and NoRoomError if it
        does not fit beside the others.
        """
        if spec.name in self._seats:
            raise SeatError(f"seat {spec.name!r} is taken")
        if self.base.spec.trained and self._seats:
            raise NoRoomError(f"seat {spec.name!r} trains the base's own weights, as {self.seats[0]!r} does now")
        seat = Seat(spec, self.base)
        try:
            if state is not None:
                seat.restore(state)
            self._room.take(seat)
        except (SeatError, NoRoomError):
            seat.adapter.leave()
            raise
        self._seats[spec.name] = seat
        self._changed()

    def leave(self, name: str) -> None:
        """Give the seat up; what it trained is gone unless `state` or `export` was called."""
        self._seat(name).adapter.leave()
        del self._seats[name]
        self._room.give_back(name)
        self._changed()

    def progress(self, name: str) -> Progress:
        """Where a seat stands."""
        return self._seat(name).progress()

    def state(self, name: str) -> SeatState:
        """Everything to go on elsewhere; a copy."""
        return self._seat(name).state().copied()

    def save_state(self, name: str, file: Path) -> None:
        """The same into a file, without a copy in memory. Raises ExportError."""
        self._seat(name).state().save(file)

    def export(self, name: str, folder: Path) -> None:
        """Write the seat as a PEFT adapter, its head included. Raises ExportError."""
        export.write(self._seat(name), self.base, folder)

    def evaluate(self, names: Collection[str]) -> dict[str, dict[str, Evaluation]]:
        """By seat, by split: the outputs on the seat's evaluation sets, without dropout."""
        seats = [self._seat(name) for name in names]
        found = evaluate.run(self.base, seats, self._trained_by(tuple(names)))
        for seat in seats:
            seat.evaluated()
        return found

    def step(self) -> dict[str, StepReport]:
        """One optimiser step of every seat that still trains; by seat.

        A seat that has diverged is reported so, and not computed any more; its neighbours are not touched by it.
        """
        batches = {name: seat.batch() for name, seat in self._seats.items() if seat.active}
        reports = {name: self._refused(name, batch) for name, batch in batches.items() if batch.wrong_label}
        if reports:
            self._changed()
        if not self._settled:
            self._regroup()
        healthy = {name: batch for name, batch in batches.items() if not batch.wrong_label}
        return reports | (self._step(healthy) if healthy else {})

    def _step(self, batches: dict[str, Batch]) -> dict[str, StepReport]:
        tallies = self._gradients(batches)
        reports = {}
        # Another worker's processor may round otherwise, and all must decide alike.
        norms_by_bank = self.base.group.share([bank.norms() for bank in self._banks])
        for bank, norms in zip(self._banks, norms_by_bank, strict=True):
            seats = [self._seat_of_row(index, bank) for index in range(len(bank.rows))]
            updates = [seat.update() for seat in seats]
            for seat, norm, update in zip(seats, norms, updates, strict=True):
                name = seat.spec.name
                tally, batch = tallies[name], batches[name]
                constant = tally.constant(len(batch.examples))
                seat.diverged = seat.judge(tally.loss, norm, constant=constant)
                reports[name] = StepReport(
                    loss=tally.loss,
                    grad_norm=norm,
                    learning_rate=update.learning_rate,
                    examples=len(batch.examples),
                    tokens=batch.tokens,
                    diverged=seat.diverged,
                )
            bank.update(norms, updates)
            for seat in seats:
                seat.adapter.updated()
        if not all(self._seats[name].active for name in batches):
            self._changed()
        return {name: reports[name] for name in batches}

    def _gradients(self, batches: dict[str, Batch]) -> dict[str, _Tally]:
        """Forwards and backwards of one step; with smaller forwards when memory runs out."""
        while True:
            for bank in self._banks:
                bank.zero_gradients()
            tallies = {name: _Tally() for name in batches}
            try:
                for parts in self._forwards(batches):
                    if parts:
                        self._forward(parts, batches, tallies)
                    else:
                        self.base.idle(training=True)
                return self._summed(tallies)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                # The other workers wait in the middle of a layer: only a new group can begin the step anew.
                if self.base.group.size > 1:
                    raise
                if self.max_tokens <= max(len(e.ids) for batch in batches.values() for e in batch.examples):
                    raise
                self.halve_forwards()
                if self.base.device.type == "cuda":
                    torch.cuda.empty_cache()
                _log.warning("out of memory: forwards are bounded to %d tokens from now on", self.max_tokens)

    def _summed(self, tallies: dict[str, _Tally]) -> dict[str, _Tally]:
        """Gradients and tallies of the whole step, the same on every worker."""
        group, dtype = self.base.group, self.base.trained_dtype
        if group.size == 1:
            return tallies
        sum_gradients(self._banks, group)
        found = group.gather({name: tally.plain() for name, tally in tallies.items()})
        return {name: _Tally.joined([plain[name] for plain in found], dtype) for name in tallies}

    def _forwards(self, batches: dict[str, Batch]) -> list[list[Part]]:
        """This worker's share of a step, in forwards of at most `max_tokens`."""
        lengths = {name: [len(example.ids) for example in batch.examples] for name, batch in batches.items()}
        group = self.base.group
        if self.base.spec.beside:  # on one worker, and it runs on a row once for all that are with it in a forward
            reads = {name: tuple(map(content, batch.examples)) for name, batch in batches.items()}
            return together(lengths, reads, max_tokens=self.max_tokens)
        return forwards(lengths, max_tokens=self.max_tokens, rank=group.rank, workers=group.size)

    def _forward(self, parts: Sequence[Part], batches: dict[str, Batch], tallies: dict[str, _Tally]) -> None:
        names = tuple(name for name, _, _ in parts)
        rows = [
            training_rows(
                batches[name].examples[first:end],
                seed=self._seats[name].spec.train.seed,
                step=self._seats[name].row.step,
                first=first,
                answers=self._seats[name].head.answers,
            )
            for name, first, end in parts
        ]
        base = self.base
        layout = base.laid_out(rows)
        pooled_PI = base.pooled(layout, self._trained_by(names), training=True)
        losses = []
        for place, (name, first, end) in enumerate(parts):
            batch, (low, high) = batches[name], layout.read_spans[place]
            labels = batch.labels[first:end].to(base.device)
            judged = self._seats[name].head.judge(layout, place, pooled_PI[low:high], labels)
            losses.append(judged.losses.sum() / batch.weight)
            if judged.logits is not None:
                tallies[name].lowest.append(judged.logits.detach().amin(0))
                tallies[name].highest.append(judged.logits.detach().amax(0))
        stacked = torch.stack(losses)
        stacked.sum().backward()  # type: ignore[no-untyped-call]  # torch's backward is untyped
        for name, loss in zip(names, stacked.tolist(), strict=True):
            tallies[name].loss += loss

    def _refused(self, name: str, batch: Batch) -> StepReport:
        self._seats[name].diverged = batch.wrong_label
        rate, nan = self._seats[name].update().learning_rate, float("nan")
        return StepReport(nan, nan, rate, len(batch.examples), batch.tokens, batch.wrong_label)

    def _seat(self, name: str) -> Seat:
        if name not in self._seats:
            raise SeatError(f"no seat {name!r} here; known: {', '.join(self._seats) or 'none'}")
        return self._seats[name]

    def _seat_of_row(self, index: int, bank: Bank) -> Seat:
        return next(seat for seat in self._seats.values() if seat.row is bank.rows[index])

    def _changed(self) -> None:
        """Other seats train than before: the next step puts their rows in order, however many came and went."""
        self._settled = False
        self._trained = {}
        self.base.other_seats()
        if not self._seats:
            self._regroup()  # no step comes that would let the old rows go

    def _regroup(self) -> None:
        """The rows of those that train go into banks; the others keep their own, which nothing updates."""
        for seat in self._seats.values():
            seat.row.leave_bank()
        self._banks = ()  # before the new ones are there: memory need not hold both
        self._banks = gather(seat.row for seat in self._seats.values() if seat.active)
        for seat in self._seats.values():
            seat.bind()
        self._trained = {}
        self._settled = True

    def _trained_by(self, names: tuple[str, ...]) -> Trained:
        """For a forward in which these seats lie in this order."""
        if names not in self._trained:
            grouped = self.base.kernels.adapters == "grouped"
            seats = [self._seats[name] for name in names]
            self._trained[names] = trained([(seat.slots, seat.side) for seat in seats], grouped=grouped)
        return self._trained[names]
