"""Predictions with a trained adapter.

from tunery import Predictor
Predictor.load("glue-cola@champion")("The book was written by John.")
"""

# N examples, B a batch, T tokens, C classes (1 for a regression)

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from storage.tokens import encoder
from tunery.errors import InputError
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.inference.loading import load, usable_device
from tunery.inference.running import Logits, Running
from tunery.inference.source import locate

Input = tuple[str, str | None]
"""A text, and the second text of a task on pairs."""

_WINDOW_BATCHES = 16
"""Batches read ahead to sort by length: the padding saved grows slowly beyond, the wait for the first result fast."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one input."""

    label: str | None
    """The likeliest label; None for a regression."""
    score: float
    """Its probability; for a regression the value."""
    scores: Mapping[str, float]
    """Label -> probability, in the order of the head's outputs; empty for a regression."""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.score:.4f}" if self.label is None else f"{self.label}  {self.score:.4f}"

    def told(self) -> dict[str, Any]:
        """For programs, as documents hold it."""
        return {"label": self.label, "score": self.score, "scores": dict(self.scores)}


class Predictor:
    """A loaded model. Calls are independent of each other and of what shares their batch (but for rounding)."""

    def __init__(self, running: Running, card: AdapterCard, *, name: str) -> None:
        self.card = card
        self.name = name
        """`glue-cola/3`, or the folder."""
        self._running = running
        self._encode = encoder(running.tokenizer, card.max_length)

    @classmethod
    def load(
        cls,
        model: str | Path,
        home: Home | None = None,
        device: str | None = None,
        *,
        profile: str | None = None,
        quantised: bool = True,
    ) -> Predictor:
        """Load `name@alias`, `name/3`, `name` (its champion), a run's trial `run/study/3` or an adapter's folder.

        `home` is TUNERY_HOME's by default, `device` the GPU where there is one. Raises NotFoundError,
        UnreachableError, InputError (see `tunery.inference.source` and `.loading`).
        """
        device = usable_device(device)
        source = locate(model, home=home, profile=profile)
        if source.card.asking is not None:
            raise InputError(f"{source.name} generates answers, and has no labels or values: use Generator")
        running = load(source.folder, source.card, device=device, quantised=quantised)
        return cls(running, source.card, name=source.name)

    def __call__(self, text: str, text_pair: str | None = None) -> Prediction:
        return prediction_of(self.card, self.logits([(text, text_pair)])[0])

    def predict_many(self, inputs: Iterable[Input], batch_size: int = 32) -> Iterator[Prediction]:
        """A prediction for each input, in their order. Reads ahead of what it yields by some batches."""
        iterator = iter(inputs)
        while window := list(islice(iterator, batch_size * _WINDOW_BATCHES)):
            yield from (prediction_of(self.card, logits_C) for logits_C in self.logits(window, batch_size))

    def logits(self, inputs: Sequence[Input], batch_size: int = 32) -> Logits:
        """[N, C] the head's outputs, in the order of the inputs. InputError for one without tokens, and where
        some have a second text and others do not.
        """
        if not inputs:
            return np.zeros((0, max(1, len(self.card.labels))), dtype=np.float32)
        ids, types = self._encode(*_columns(inputs))
        if empty := [number for number, tokens in enumerate(ids) if not tokens]:
            raise InputError(f"input {empty[0]} has no tokens: {inputs[empty[0]][0]!r}")
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        result_NC: Logits | None = None
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits_BC = self._running.logits(
                [ids[row] for row in rows], [types[row] for row in rows] if types else None
            )
            if result_NC is None:
                result_NC = np.empty((len(ids), logits_BC.shape[1]), dtype=np.float32)
            result_NC[rows] = logits_BC
        assert result_NC is not None
        return result_NC


def prediction_of(card: AdapterCard, logits_C: Logits) -> Prediction:
    """What a model says with these outputs of its head."""
    if card.kind == "regression":
        return Prediction(None, float(logits_C[0]), {})
    scores_C = np.exp(logits_C.astype(np.float64) - logits_C.max())
    scores_C /= scores_C.sum()
    best = int(scores_C.argmax())
    scores = {label: float(score) for label, score in zip(card.labels, scores_C, strict=True)}
    return Prediction(card.labels[best], float(scores_C[best]), scores)


def _columns(inputs: Sequence[Input]) -> tuple[list[str], list[str] | None]:
    pairs = [pair for _, pair in inputs if pair is not None]
    if pairs and len(pairs) != len(inputs):
        raise InputError(f"{len(pairs)} of {len(inputs)} inputs have a second text: all of a model's inputs or none")
    return [text for text, _ in inputs], pairs or None
