"""Trained seats read back from their exports: several on one base, asked together and trained no more."""

# N examples, C classes, P pooled tokens, I in

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.bank import Row
from tuners.engine.base import Base
from tuners.engine.export import ROOT, names_of
from tuners.engine.generate import Asker, answers
from tuners.engine.head import Head, SeatHead
from tuners.engine.language import LanguageHead
from tuners.engine.layout import Rows
from tuners.engine.method import adapter_of
from tuners.engine.slots import Side, Slot, Trained, trained
from tuners.engine.types import AnyExample, HeadSpec
from tuners.errors import SeatError

_MAX_TOKENS = 4096
"""Of one forward."""
_MOST_TRAINED = 64
"""Sets of names whose layers are held together, ready to be asked again."""


@dataclass(frozen=True)
class _Place:
    """What one export trains at the base, with its values."""

    head: SeatHead
    slots: Mapping[int, Slot]
    side: Side | None


class Reader:
    """Answers for whoever has a place."""

    def __init__(self, base: Base) -> None:
        assert not base.spec.trained, "what is asked is trained no more"
        self.base = base
        self._places: dict[str, _Place] = {}
        self._trained: dict[tuple[str, ...], Trained] = {}

    def add(self, name: str, tuner: TunerConfig | None, head: HeadSpec, folder: Path) -> None:
        """Give an exported seat a place, in that of another of this name. Without a `tuner` the folder holds a whole
        model, which is this base: what is read is its head.

        Raises SeatError where the folder does not hold what `tuner` and `head` train on this base; TunerError where
        they do not fit it.
        """
        adapter = None if tuner is None else adapter_of(tuner, self.base)
        own_head, form = self.base.head(head), "model" if adapter is None else adapter.form
        segments = [*(adapter.segments if adapter else ()), *own_head.segments]
        row = Row(segments, self.base.device, self.base.trained_dtype)
        theta, none = row.views(row.theta), row.views(row.g)
        own_head.bind(theta, none)
        root = f"{ROOT}." if form == "adapter" else ""
        places = {f"{root}{key}": values for key, values in own_head.tensors().items()}
        if adapter is not None:
            places |= adapter.tensors(theta, f"{root}{self.base.family.prefix}")
        _fill(places, folder / names_of(form)[0], more=form == "model")
        slots, side = ({}, None) if adapter is None else (adapter.slots(theta, none), adapter.side(theta, none))
        self._places[name] = _Place(own_head, slots, side)
        self._trained = {}

    @torch.no_grad()
    def logits(self, asked: Mapping[str, Sequence[AnyExample]]) -> dict[str, NDArray[np.float32]]:
        """[N, C] of each one's examples, in their order."""
        names = tuple(sorted(asked))
        heads = [self._place(name).head for name in names]
        found = {name: np.empty((len(asked[name]), self._head(name).spec.outputs), np.float32) for name in names}
        for batch in _batches([asked[name] for name in names]):
            rows = [Rows([asked[name][index] for index in batch[place]], None) for place, name in enumerate(names)]
            layout = self.base.laid_out(rows)
            pooled_PI = self.base.pooled(layout, self._trained_by(names), training=False)
            for place, name in enumerate(names):
                low, high = layout.read_spans[place]
                head = heads[place]
                if low < high and isinstance(head, Head):
                    found[name][batch[place]] = head.logits(pooled_PI[low:high], None).float().cpu().numpy()
        return found

    @torch.no_grad()
    def answers(self, asked: Mapping[str, Asker]) -> dict[str, list[NDArray[np.int32]]]:
        """The likeliest words after each prompt; see `generate.answers`."""
        names = tuple(sorted(asked))
        heads = [head for name in names if isinstance(head := self._place(name).head, LanguageHead)]
        if len(heads) != len(names):
            raise SeatError("only a model with answers can be asked for them")
        askers = [asked[name] for name in names]
        found = answers(self.base, askers, self._trained_by(names), heads[0].words)
        return dict(zip(names, found, strict=True))

    def _place(self, name: str) -> _Place:
        if name not in self._places:
            raise SeatError(f"no model {name!r} here; known: {', '.join(self._places) or 'none'}")
        return self._places[name]

    def _head(self, name: str) -> Head:
        head = self._place(name).head
        if not isinstance(head, Head):
            raise SeatError(f"{name!r} has answers, and neither classes nor a value")
        return head

    def _trained_by(self, names: tuple[str, ...]) -> Trained:
        if names not in self._trained:
            if len(self._trained) >= _MOST_TRAINED:
                self._trained.clear()
            grouped = self.base.kernels.adapters == "grouped"
            places = [self._place(name) for name in names]
            self._trained[names] = trained([(place.slots, place.side) for place in places], grouped=grouped)
        return self._trained[names]


def _fill(places: Mapping[str, Tensor], file: Path, *, more: bool) -> None:
    """`more`: the file holds other things too."""
    try:
        values = load_file(file)
    except (OSError, SafetensorError) as error:
        raise SeatError(f"{file} cannot be read: {error}") from error
    wrong = sorted(
        name
        for name in (places.keys() if more else places.keys() | values.keys())
        if name not in places or name not in values or places[name].shape != values[name].shape
    )
    if wrong:
        raise SeatError(f"{file} does not hold what it should: {', '.join(wrong[:5])} are missing or of another shape")
    for name, place in places.items():
        place.copy_(values[name])


def _batches(asked: Sequence[Sequence[AnyExample]]) -> Iterator[list[list[int]]]:
    """By place, the examples of one forward: of about the same length, and at most so many tokens."""
    every = [(len(example.ids), place, index) for place, own in enumerate(asked) for index, example in enumerate(own)]
    batch: list[list[int]] = [[] for _ in asked]
    tokens = 0
    for length, place, index in sorted(every):
        if tokens and tokens + length > _MAX_TOKENS:
            yield batch
            batch, tokens = [[] for _ in asked], 0
        batch[place].append(index)
        tokens += length
    if tokens:
        yield batch
