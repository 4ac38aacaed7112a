"""How one forward's sequences lie end to end, and what attention and dropout need to know about it."""

# S seats, N sequences, T tokens, M places of the padded buckets, L a bucket's longest sequence

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuners.engine.streams import row_keys, token_keys
from tuners.engine.types import AnyExample

_BUCKET_OVERHEAD = 192
"""Padded tokens that cost as much as one more bucket: measured, on a CPU."""


@dataclass(frozen=True)
class Rows:
    """What one seat brings to a forward."""

    examples: Sequence[AnyExample]
    keys: NDArray[np.int64] | None
    """[N] dropout keys; None in an evaluation."""


def training_rows(examples: Sequence[AnyExample], *, seed: int, step: int, first: int) -> Rows:
    """Rows `first`, `first + 1`, ... of a seat's step."""
    return Rows(examples, row_keys(seed, step, np.arange(first, first + len(examples))))


@dataclass(frozen=True)
class Bucket:
    """Sequences of about the same length, padded to the longest for dense attention."""

    start: int
    """Its first place among the M."""
    count: int
    length: int
    sequences: Tensor
    """int64 [count] which sequences."""
    mask: Tensor | None
    """bool [count, 1, 1, L], true at real tokens; None where nothing is padded."""


@dataclass(frozen=True)
class Layout:
    """One forward's batch."""

    ids: Tensor
    """int64 [1, T]"""
    positions: Tensor
    """int64 [1, T], starting over at each sequence."""
    types: Tensor
    """int64 [1, T]"""
    token_spans: tuple[tuple[int, int], ...]
    """[S] each seat's tokens."""
    row_spans: tuple[tuple[int, int], ...]
    """[S] each seat's sequences."""
    pooled: Tensor
    """int64 [N] the token that stands for each sequence: its first, or its last where attention is causal."""
    places: Tensor
    """int64 [T] each token's place among the M."""
    padded: int
    """M"""
    buckets: tuple[Bucket, ...]
    token_keys: Tensor | None
    """int64 [T] dropout keys; None in an evaluation."""
    pooled_keys: Tensor | None
    """int64 [N] those of the pooled tokens."""
    row_keys: Tensor | None
    """int64 [N] those of the sequences."""

    @property
    def tokens(self) -> int:
        """T"""
        return self.ids.shape[1]


def lay_out(seats: Sequence[Rows], *, causal: bool, first_position: int, device: torch.device) -> Layout:
    """The seats' sequences end to end. A seat may bring none."""
    examples = [example for rows in seats for example in rows.examples]
    lengths = np.array([len(example.ids) for example in examples], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    sequence_T = np.repeat(np.arange(len(examples)), lengths)
    position_T = np.arange(int(ends[-1])) - starts[sequence_T]
    places, padded, buckets = _buckets(lengths, starts, causal=causal, device=device)
    pooled = ends - 1 if causal else starts
    counts = np.cumsum([0, *(len(rows.examples) for rows in seats)])
    bounds = np.concatenate([[0], ends])[counts]
    keys = None if seats[0].keys is None else np.concatenate([rows.keys for rows in seats if rows.keys is not None])
    by_token = None if keys is None else token_keys(keys, sequence_T, position_T)

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)

    return Layout(
        ids=tensor(np.concatenate([example.ids for example in examples]))[None],
        positions=tensor(position_T + first_position)[None],
        types=tensor(_types(examples, lengths))[None],
        token_spans=_spans(bounds),
        row_spans=_spans(counts),
        pooled=tensor(pooled),
        places=tensor(places),
        padded=padded,
        buckets=buckets,
        token_keys=None if by_token is None else tensor(by_token),
        pooled_keys=None if by_token is None else tensor(by_token[pooled]),
        row_keys=None if keys is None else tensor(keys),
    )


def _spans(bounds: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(bounds.tolist()))


def _types(examples: Sequence[AnyExample], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    if all(example.types is None for example in examples):
        return np.zeros(int(lengths.sum()), np.int64)
    parts = [
        np.zeros(int(length), np.int64) if example.types is None else example.types
        for example, length in zip(examples, lengths, strict=True)
    ]
    return np.concatenate(parts).astype(np.int64)


def _buckets(
    lengths: NDArray[np.int64], starts: NDArray[np.int64], *, causal: bool, device: torch.device
) -> tuple[NDArray[np.int64], int, tuple[Bucket, ...]]:
    """Places [T], M and the buckets."""
    order = np.argsort(lengths, kind="stable")
    ascending = lengths[order]
    cuts = _cuts(ascending)
    place_of = np.empty(len(lengths), np.int64)  # the padded place where each sequence starts
    buckets, start = [], 0
    for low, high in pairwise(cuts):
        members, length = order[low:high], int(ascending[high - 1])
        place_of[members] = start + np.arange(high - low) * length
        mask = None
        # With a causal mask a padded key comes after every real query, so nothing sees it.
        if not causal and ascending[low] != length:
            real = np.arange(length)[None] < lengths[members][:, None]
            mask = torch.from_numpy(real).view(-1, 1, 1, length).to(device)
        buckets.append(Bucket(start, high - low, length, torch.from_numpy(members).to(device), mask))
        start += (high - low) * length
    sequence_T = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(sequence_T)) + (place_of - starts)[sequence_T]
    return places, start, tuple(buckets)


def _cuts(ascending: NDArray[np.int64]) -> list[int]:
    """Bounds of the buckets: split while the padding saved is worth another bucket."""
    cuts, open_ranges = [0, len(ascending)], [(0, len(ascending))]
    while open_ranges:
        low, high = open_ranges.pop()
        if high - low < 4:
            continue
        middles = np.arange(low + 1, high)
        costs = (middles - low) * ascending[middles - 1] + (high - middles) * ascending[high - 1]
        best = int(costs.argmin())
        if (high - low) * ascending[high - 1] - costs[best] > _BUCKET_OVERHEAD:
            middle = int(middles[best])
            cuts.append(middle)
            open_ranges += [(low, middle), (middle, high)]
    return sorted(cuts)
