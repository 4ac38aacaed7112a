"""Greedy answers of several seats at once: prompts end to end, then a token a step of every sequence that goes on."""

# B sequences of a batch

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuners.engine.base import Base
from tuners.engine.cache import Cache
from tuners.engine.layout import Rows, lay_out_next
from tuners.engine.slots import Trained
from tuners.engine.types import Example

_PROMPT_TOKENS = 4096
"""Of one forward of prompts."""
_CACHE_BYTES = 512 << 20
_COMPACT = 0.75
"""Sequences that have ended are computed along until no more than this share goes on: moving the cache costs a step."""

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Asker:
    """One seat's prompts."""

    prompts: Sequence[Ids]
    most: int
    """Tokens of an answer at most."""
    stop: tuple[int, ...] = ()
    """Words at which an answer ends."""


@dataclass
class _Sequence:
    seat: int
    prompt: Ids
    most: int
    stop: frozenset[int]
    answer: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def longest(self) -> int:
        return len(self.prompt) + self.most

    def take(self, word: int) -> None:
        if word in self.stop:
            self.ended = True
        elif not self.ended:
            self.answer.append(word)
            self.ended = len(self.answer) == self.most


Words = Callable[[Tensor], Tensor]
"""[B, I] states -> int64 [B] the likeliest next words."""


def answers(base: Base, askers: Sequence[Asker], trained: Trained, words: Words) -> list[list[Ids]]:
    """By asker, by prompt: the likeliest word each time, up to one that ends an answer (which is left out), the most
    tokens, or the end of the model's positions. `trained` is what the seats train, in this order.
    """
    if isinstance(trained, tuple) and len(trained) > 1:
        # Each network runs on its own seat's sequences.
        return [answers(base, [asker], (side,), words)[0] for asker, side in zip(askers, trained, strict=True)]
    # The last token of an answer is not gone on from: it needs no position.
    sequences = [
        _Sequence(seat, prompt, min(asker.most, base.longest - len(prompt) + 1), frozenset(asker.stop))
        for seat, asker in enumerate(askers)
        for prompt in asker.prompts
    ]
    with torch.no_grad():
        for batch in _batches(sequences, places=_CACHE_BYTES // base.cache_bytes):
            _answer(base, trained, words, batch, seats=len(askers))
    found: list[list[Ids]] = [[] for _ in askers]
    for sequence in sequences:
        found[sequence.seat].append(np.array(sequence.answer, np.int32))
    return found


def _batches(sequences: Sequence[_Sequence], *, places: int) -> Iterator[list[_Sequence]]:
    """Prompts of about the same length, in the seats' order; at most so many tokens in the cache."""
    batch: list[_Sequence] = []
    for each in sorted(sequences, key=lambda sequence: len(sequence.prompt)):
        more = [*batch, each]
        tokens, longest = sum(len(one.prompt) for one in more), max(one.longest for one in more)
        if batch and (tokens > _PROMPT_TOKENS or len(more) * longest > places):
            yield sorted(batch, key=lambda sequence: sequence.seat)
            more = [each]
        batch = more
    if batch:
        yield sorted(batch, key=lambda sequence: sequence.seat)


def _answer(base: Base, trained: Trained, words: Words, going: list[_Sequence], *, seats: int) -> None:
    """Fill in the answers of one batch."""
    # Prompts alone: what is read is the state of each one's last token.
    rows = [
        Rows([Example(each.prompt, None, 0.0) for each in going if each.seat == seat], None) for seat in range(seats)
    ]
    lengths = torch.tensor([len(each.prompt) for each in going], device=base.device)
    layout = base.laid_out(rows)
    cache = Cache(layout.pooled - lengths + 1, lengths, max(each.longest for each in going))
    while True:
        found = words(base.pooled(layout, trained, training=False, cache=cache)).tolist()
        for each, word in zip(going, found, strict=True):
            each.take(word)
        on = [place for place, each in enumerate(going) if not each.ended]
        if not on:
            return
        if len(on) <= _COMPACT * len(going):
            going, found = [going[place] for place in on], [found[place] for place in on]
            cache.keep(torch.tensor(on, device=base.device))
        bounds = np.searchsorted([each.seat for each in going], np.arange(seats + 1))
        layout = lay_out_next(found, cache.lengths + base.first_position, bounds)
