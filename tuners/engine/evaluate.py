"""Evaluation of several seats at once, without padding and without gradients."""

# N examples of a split, C classes, K rows of all seats and splits

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from tuners.engine.base import Base
from tuners.engine.generate import Asker, answers
from tuners.engine.group import Group
from tuners.engine.language import LanguageHead
from tuners.engine.layout import Rows
from tuners.engine.seat import Seat
from tuners.engine.slots import Trained
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
    costs: NDArray[np.float64]
    """[N] each example's loss, of an answer the sum over its tokens."""

    @classmethod
    def of(cls, seat: int, name: str, examples: Examples, outputs: int) -> _Split:
        size = len(examples)
        return cls(seat, name, examples, np.empty((size, outputs), np.float32), np.empty(size), np.empty(size))


def run(base: Base, seats: Sequence[Seat], trained: Trained) -> dict[str, dict[str, Evaluation]]:
    """By seat, by split. `trained` is what the seats train, in this order."""
    splits = [
        _Split.of(place, name, examples, seat.head.spec.outputs)
        for place, seat in enumerate(seats)
        for name, examples in seat.spec.eval_sets.items()
    ]
    group, batches = base.group, list(_batches(splits))
    mine = batches[group.rank :: group.size]
    with torch.no_grad():
        for batch in mine:
            _forward(base, seats, trained, splits, batch)
        if len(mine) < -(-len(batches) // group.size):
            base.idle(training=False)
    _exchange(group, splits, mine)
    generated = _answers(base, seats, trained, splits)
    found: dict[str, dict[str, Evaluation]] = {seat.spec.name: {} for seat in seats}
    for place, split in enumerate(splits):
        weights = split.examples.lengths - split.labels if place in generated else np.ones(len(split.labels))
        loss = float(split.costs.sum() / weights.sum()) if len(weights) else float("nan")
        name = seats[split.seat].spec.name
        found[name][split.name] = Evaluation(split.logits, split.labels, loss, tuple(generated.get(place, ())))
    return found


def _answers(
    base: Base, seats: Sequence[Seat], trained: Trained, splits: Sequence[_Split]
) -> dict[int, list[NDArray[np.int32]]]:
    """By split, of the seats that generate. Workers that share a base all do the same: no layer runs without all."""
    heads = [seat.head for seat in seats if isinstance(seat.head, LanguageHead)]
    if not heads:
        return {}
    asking = [place for place, split in enumerate(splits) if seats[split.seat].head.answers]
    askers = [
        Asker(
            [prompt for place in asking if splits[place].seat == number for prompt in _prompts(splits[place])],
            most=seat.spec.train.max_new_tokens,
            stop=seat.head.spec.stop,
        )
        for number, seat in enumerate(seats)
    ]
    rests = [iter(found) for found in answers(base, askers, trained, heads[0].words)]
    return {place: list(islice(rests[splits[place].seat], len(splits[place].labels))) for place in asking}


def _prompts(split: _Split) -> Iterator[NDArray[np.int32]]:
    for index in range(len(split.labels)):
        example = split.examples[index]
        yield example.ids[: int(example.label)]


def _exchange(group: Group, splits: Sequence[_Split], mine: Sequence[NDArray[np.int64]]) -> None:
    """What each worker has computed goes to all."""
    if group.size == 1:
        return
    rows_K2 = np.concatenate([np.empty((0, 2), np.int64), *mine])
    chosen = [rows_K2[rows_K2[:, 0] == place, 1] for place in range(len(splits))]
    own = [
        (rows, split.logits[rows], split.labels[rows], split.costs[rows])
        for rows, split in zip(chosen, splits, strict=True)
    ]
    for found in group.gather(own):
        for split, (rows, logits, labels, costs) in zip(splits, found, strict=True):
            split.logits[rows], split.labels[rows], split.costs[rows] = logits, labels, costs


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
    base: Base, seats: Sequence[Seat], trained: Trained, splits: Sequence[_Split], batch_k2: NDArray[np.int64]
) -> None:
    places = batch_k2.tolist()
    examples = [splits[split].examples[index] for split, index in places]
    seat_k = np.array([splits[split].seat for split, _ in places])
    bounds = np.searchsorted(seat_k, np.arange(len(seats) + 1)).tolist()
    rows = [
        Rows(examples[low:high], None, seat.head.answers)
        for seat, (low, high) in zip(seats, pairwise(bounds), strict=True)
    ]
    layout = base.laid_out(rows)
    pooled_PI = base.pooled(layout, trained, training=False)
    labels_k = torch.tensor([example.label for example in examples], dtype=torch.float64)
    for number, seat in enumerate(seats):
        (low, high), (first, end) = layout.row_spans[number], layout.read_spans[number]
        if low == high:
            continue
        judged = seat.head.judge(layout, number, pooled_PI[first:end], labels_k[low:high].to(base.device))
        costs = judged.losses.double().cpu().numpy()
        logits_NC = None if judged.logits is None else judged.logits.cpu().numpy()
        if seat.head.answers:
            tokens = [len(example.ids) - int(example.label) for example in examples[low:high]]
            costs = np.add.reduceat(costs, np.cumsum([0, *tokens[:-1]]))
        for offset, (split, index) in enumerate(places[low:high]):
            found = splits[split]
            found.labels[index], found.costs[index] = examples[low + offset].label, costs[offset]
            if logits_NC is not None:
                found.logits[index] = logits_NC[offset]
