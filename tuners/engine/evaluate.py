"""Evaluation of several seats at once, without padding and without gradients."""

# N examples of a split, C classes, K rows of all seats and splits

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from tuners.engine.base import Base
from tuners.engine.context import SlotsBySite
from tuners.engine.group import Group
from tuners.engine.layout import Rows
from tuners.engine.seat import Seat
from tuners.engine.types import Evaluation, Examples

_MAX_TOKENS = 4096
"""Of one forward: activations that stay in the caches."""


@dataclass(frozen=True)
class _Split:
    """One seat's split, and where its outputs go."""

    seat: int
    name: str
    examples: Examples
    logits: NDArray[np.float32]
    """[N, C]"""
    labels: NDArray[np.float64]
    """[N]"""


def run(base: Base, seats: Sequence[Seat], slots: SlotsBySite) -> dict[str, dict[str, Evaluation]]:
    """By seat, by split. `slots` are those of the seats in this order."""
    splits = [
        _Split(place, name, examples, np.empty((len(examples), outputs), np.float32), np.empty(len(examples)))
        for place, seat in enumerate(seats)
        for outputs in (seat.head.spec.outputs,)
        for name, examples in seat.spec.eval_sets.items()
    ]
    group, batches = base.group, list(_batches(splits))
    mine = batches[group.rank :: group.size]
    with torch.no_grad():
        for batch in mine:
            _forward(base, seats, slots, splits, batch)
        if len(mine) < -(-len(batches) // group.size):
            base.idle(training=False)
    _exchange(group, splits, mine)
    found: dict[str, dict[str, Evaluation]] = {seat.spec.name: {} for seat in seats}
    for split in splits:
        seat = seats[split.seat]
        logits, labels = torch.from_numpy(split.logits), torch.from_numpy(split.labels)
        loss = float(seat.head.losses(logits, labels).mean()) if len(labels) else float("nan")
        found[seat.spec.name][split.name] = Evaluation(split.logits, split.labels, loss)
    return found


def _exchange(group: Group, splits: Sequence[_Split], mine: Sequence[NDArray[np.int64]]) -> None:
    """What each worker has computed goes to all."""
    if group.size == 1:
        return
    rows_K2 = np.concatenate([np.empty((0, 2), np.int64), *mine])
    chosen = [rows_K2[rows_K2[:, 0] == place, 1] for place in range(len(splits))]
    own = [(rows, split.logits[rows], split.labels[rows]) for rows, split in zip(chosen, splits, strict=True)]
    for found in group.gather(own):
        for split, (rows, logits, labels) in zip(splits, found, strict=True):
            split.logits[rows], split.labels[rows] = logits, labels


def _batches(splits: Sequence[_Split]) -> Iterator[NDArray[np.int64]]:
    """[k, 2] (split, index) of each forward: all rows by length, cut at the bound on tokens, then by seat again."""
    rows = [np.stack([np.full(len(s.labels), place), np.arange(len(s.labels))], 1) for place, s in enumerate(splits)]
    if not sum(len(part) for part in rows):
        return
    rows_K2 = np.concatenate(rows)
    lengths_K = np.concatenate([split.examples.lengths for split in splits]).astype(np.int64)
    order = np.argsort(lengths_K, kind="stable")
    start, tokens = 0, 0
    for end, length in enumerate(lengths_K[order].tolist()):
        if tokens and tokens + length > _MAX_TOKENS:
            yield _by_split(rows_K2[order[start:end]])
            start, tokens = end, 0
        tokens += length
    yield _by_split(rows_K2[order[start:]])


def _by_split(rows_k2: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows_k2[np.argsort(rows_k2[:, 0], kind="stable")]


def _forward(
    base: Base, seats: Sequence[Seat], slots: SlotsBySite, splits: Sequence[_Split], batch_k2: NDArray[np.int64]
) -> None:
    places = batch_k2.tolist()
    examples = [splits[split].examples[index] for split, index in places]
    seat_k = np.array([splits[split].seat for split, _ in places])
    bounds = np.searchsorted(seat_k, np.arange(len(seats) + 1)).tolist()
    rows = [Rows(examples[low:high], None) for low, high in pairwise(bounds)]
    layout = base.laid_out(rows)
    pooled_NI = base.pooled(layout, slots, training=False)
    for seat, (low, high) in zip(seats, layout.row_spans, strict=True):
        if low == high:
            continue
        logits_NC = seat.head.logits(pooled_NI[low:high], None).cpu().numpy()
        for (split, index), example, logits in zip(places[low:high], examples[low:high], logits_NC, strict=True):
            splits[split].logits[index], splits[split].labels[index] = logits, example.label
