"""Tokens of inputs, drawn from stated distributions, and rows of such inputs.

Speed and memory depend on how many tokens there are and not on which, so the ids are drawn too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuners.engine import Example

_FIRST_ID = 5
"""Below it are special tokens in most vocabularies."""
_LEVELS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths, linear between its quantiles."""

    what: str
    tokens: tuple[int, ...]
    """At the quantiles `levels`."""
    batch: int
    """Examples an optimiser step."""
    padded: int
    """Tokens to which a rival that pads everything pads."""
    levels: tuple[float, ...] = _LEVELS

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """int32 [count]"""
        return np.interp(rng.random(count), self.levels, self.tokens).round().astype(np.int32)


LENGTHS: Mapping[str, Lengths] = {
    # Quantiles of the train splits with BERT's uncased tokenizer, special tokens included, cut at 128.
    "cola": Lengths("as CoLA's, mean 11.3", (4, 7, 8, 9, 10, 10, 11, 12, 14, 17, 20, 25, 47), batch=32, padded=128),
    "mnli": Lengths("as MNLI's, mean 40", (5, 19, 24, 29, 33, 37, 42, 47, 54, 64, 73, 101, 128), batch=32, padded=128),
    "long": Lengths("256 to 512, each as likely", (256, 512), batch=4, padded=512, levels=(0.0, 1.0)),
    "1k": Lengths("1024 each", (1024, 1024), batch=4, padded=1024, levels=(0.0, 1.0)),
}


@dataclass(frozen=True)
class Rows:
    """Drawn inputs with drawn labels; what the engine calls Examples."""

    examples: tuple[Example, ...]
    lengths: NDArray[np.int32]
    """[N]"""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def rows(lengths: Lengths, count: int, *, vocabulary: int, rng: np.random.Generator, answers: bool = False) -> Rows:
    """`count` inputs of two classes; with `answers`, the second half of each is one."""
    drawn = lengths.draw(count, rng)
    first = min(_FIRST_ID, vocabulary - 1)
    examples = tuple(
        Example(
            rng.integers(first, vocabulary, length, dtype=np.int32),
            None,
            float(length // 2 if answers else rng.integers(2)),
        )
        for length in drawn.tolist()
    )
    return Rows(examples, drawn)
