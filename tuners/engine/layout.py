"""How one forward's sequences lie end to end, and what attention and dropout need to know about it."""

# S seats, N sequences, T tokens, P pooled tokens, M places of the padded buckets, L a bucket's longest sequence

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuners.engine.streams import row_keys, token_keys
from tuners.engine.types import AnyExample

# Shapes come from a grid: oneDNN compiles kernels for each new one, a good part of a step where every step has its own.
# And what it keeps of each lies scattered in the memory that a step frees, where large tensors then find no room.
_GRID = 16
"""Tokens are filled up to a multiple of it."""
_SEAT_STEPS, _TOTAL_STEPS = 8, 16
"""Sizes between a power of two and the next: of a seat's tokens, and of all. At most an eighth and a sixteenth more."""
_LENGTHS, _COUNTS = 8, 4
"""A bucket's length and count are multiples of these; the count of long sequences of less, down to 1."""
_FILLER = 256
"""Tokens that a bucket may be filled up with: a copy of a long sequence costs more than a kernel does."""
_BUCKET_OVERHEAD = 192
"""Padded tokens that cost as much as one more bucket: measured, on a CPU."""


@dataclass(frozen=True)
class Rows:
    """What one seat brings to a forward."""

    examples: Sequence[AnyExample]
    keys: NDArray[np.int64] | None
    """[N] dropout keys; None in an evaluation."""
    answers: bool = False
    """Whether each token of an answer is predicted, and not one thing of the sequence."""


def training_rows(examples: Sequence[AnyExample], *, seed: int, step: int, first: int, answers: bool = False) -> Rows:
    """Rows `first`, `first + 1`, ... of a seat's step."""
    return Rows(examples, row_keys(seed, step, np.arange(first, first + len(examples))), answers)


@dataclass(frozen=True)
class Bucket:
    """Sequences of about the same length, padded for dense attention; the M places are those of all buckets."""

    count: int
    length: int
    sequences: Tensor
    """int64 [count] which sequences; those that only fill it up stand there a second time."""
    lengths: tuple[int, ...]
    """[count] their tokens; the other places are padded."""
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
    pooled_spans: tuple[tuple[int, int], ...]
    """[S] each seat's pooled tokens."""
    read_spans: tuple[tuple[int, int], ...]
    """[S] those of them whose states are read; what is left of a seat's fills them up to a size on the grid."""
    pooled: Tensor
    """int64 [P] the tokens whose states are computed to the end, each once. Read is of a sequence that has a class or a
    value its first, or its last where attention is causal; of one that has an answer the token before each of the
    answer's."""
    places: Tensor
    """int64 [T] each token's place among the M; a filler's is one of its seat's."""
    fillers: Tensor
    """int64, which of the T tokens belong to no sequence."""
    sources: Tensor
    """int64 [M] the token at each place; where a sequence is padded, one of its own."""
    padding: Tensor
    """int64, which of the M places are padded."""
    buckets: tuple[Bucket, ...]
    bounds: tuple[int, ...]
    """From 0 to T: where sequences, and the runs of filler between them, begin and end."""
    longest: int
    """Tokens of the longest sequence."""
    token_keys: Tensor | None
    """int64 [T] dropout keys; None in an evaluation."""
    pooled_keys: Tensor | None
    """int64 [P] those of the pooled tokens."""
    row_keys: Tensor | None
    """int64 [N] those of the sequences."""
    rows: tuple[Rows, ...] = ()
    """[S] what each seat has brought."""

    @property
    def tokens(self) -> int:
        """T"""
        return self.ids.shape[1]

    @cached_property
    def cuts(self) -> Tensor:
        """int32, from 0 to T: where sequences, and the runs of filler between them, begin and end."""
        return torch.tensor(self.bounds, dtype=torch.int32).to(self.ids.device)

    @cached_property
    def longest_run(self) -> int:
        """Tokens of the longest sequence or run of filler."""
        return max(end - start for start, end in pairwise(self.bounds))

    @cached_property
    def token_ends(self) -> Tensor:
        """int32 [S] the token after each seat's last."""
        return _ends(self.token_spans, self.ids.device)

    @cached_property
    def pooled_ends(self) -> Tensor:
        """int32 [S] the pooled token after each seat's last."""
        return _ends(self.pooled_spans, self.ids.device)

    @cached_property
    def token_seats(self) -> Tensor:
        """int64 [T] each token's seat."""
        return _members(self.token_spans, self.ids.device)

    @cached_property
    def pooled_seats(self) -> Tensor:
        """int64 [P] each pooled token's seat."""
        return _members(self.pooled_spans, self.ids.device)


def lay_out(seats: Sequence[Rows], *, causal: bool, first_position: int, device: torch.device) -> Layout:
    """The seats' sequences end to end, each seat's filled up to a size on the grid. A seat may bring none.

    The filler of the last one that brings any brings the whole to a size on a grid too.
    """
    examples = [example for rows in seats for example in rows.examples]
    lengths = np.array([len(example.ids) for example in examples], np.int64)
    counts = np.cumsum([0, *(len(rows.examples) for rows in seats)])
    packed = np.cumsum(lengths) - lengths  # where each sequence would start without filler
    sizes = np.diff(np.concatenate([[0], np.cumsum(lengths)])[counts])
    bounds = np.cumsum([0, *(_on_grid(int(size), _SEAT_STEPS) for size in sizes)])
    bounds[np.flatnonzero(sizes)[-1] + 1 :] = _on_grid(int(bounds[-1]), _TOTAL_STEPS)
    shift = bounds[:-1] - np.cumsum(sizes) + sizes
    starts = packed + np.repeat(shift, np.diff(counts))
    sequence_R = np.repeat(np.arange(len(examples)), lengths)
    position_R = np.arange(len(sequence_R)) - packed[sequence_R]
    token_R, total = starts[sequence_R] + position_R, int(bounds[-1])
    buckets, place_R, sources = _buckets(lengths, starts, sequence_R, position_R, causal=causal, device=device)
    answers = np.repeat([rows.answers for rows in seats], np.diff(counts))
    read, read_counts = _read(examples, lengths, starts, answers, causal=causal)
    read_bounds = np.concatenate([[0], np.cumsum(read_counts)])[counts]
    pooled, pooled_bounds = _on_the_grid(read, read_bounds, bounds) if answers.any() else (read, read_bounds)
    keys = None if seats[0].keys is None else np.concatenate([rows.keys for rows in seats if rows.keys is not None])

    def tensor(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)

    def by_token(values_R: NDArray[np.int64], filler: int = 0) -> NDArray[np.int64]:
        values_T = np.full(total, filler, np.int64)
        values_T[token_R] = values_R
        return values_T

    # The real token before each, which is the seat's last for a filler.
    before = np.maximum.accumulate(by_token(np.arange(len(token_R))))
    keys_T = None if keys is None else by_token(token_keys(keys, sequence_R, position_R))
    return Layout(
        ids=tensor(by_token(np.concatenate([example.ids for example in examples])))[None],
        positions=tensor(by_token(position_R + first_position, first_position))[None],
        types=tensor(by_token(_types(examples, lengths)))[None],
        token_spans=_spans(bounds),
        row_spans=_spans(counts),
        pooled_spans=_spans(pooled_bounds),
        read_spans=tuple(
            zip(pooled_bounds[:-1].tolist(), (pooled_bounds[:-1] + np.diff(read_bounds)).tolist(), strict=True)
        ),
        pooled=tensor(pooled),
        places=tensor(place_R[before]),
        fillers=tensor(_others(token_R, total)),
        sources=tensor(sources),
        padding=tensor(_others(place_R, len(sources))),
        buckets=buckets,
        bounds=tuple(np.unique(np.concatenate([bounds, starts, starts + lengths])).tolist()),
        longest=int(lengths.max()),
        token_keys=None if keys_T is None else tensor(keys_T),
        pooled_keys=None if keys_T is None else tensor(keys_T[pooled]),
        row_keys=None if keys is None else tensor(keys),
        rows=tuple(seats),
    )


def lay_out_next(words: Sequence[int], positions: Tensor, bounds: NDArray[np.int64]) -> Layout:
    """One token of each sequence, at its position (int64 [B]); a seat's are those from one of the bounds to the next.

    For sequences whose keys are in a cache: there is nothing for attention to see here.
    """
    device, count = positions.device, len(words)
    rows, none = torch.arange(count, device=device), torch.empty(0, dtype=torch.int64, device=device)
    spans = _spans(bounds)
    return Layout(
        ids=torch.tensor(words, device=device)[None],
        positions=positions[None],
        types=torch.zeros(1, count, dtype=torch.int64, device=device),
        token_spans=spans,
        row_spans=spans,
        pooled_spans=spans,
        read_spans=spans,
        pooled=rows,
        places=rows,
        fillers=none,
        sources=rows,
        padding=none,
        buckets=(),
        bounds=tuple(range(count + 1)),
        longest=1,
        token_keys=None,
        pooled_keys=None,
        row_keys=None,
    )


def _ends(spans: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    return torch.tensor([end for _, end in spans], dtype=torch.int32).to(device)


def _members(spans: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    counts = [end - start for start, end in spans]
    return torch.from_numpy(np.repeat(np.arange(len(spans)), counts)).to(device)


def _on_grid(size: int, steps: int) -> int:
    """So many sizes up to the next power of two, all multiples of 16: few, which come again and again."""
    step = max(_GRID, (1 << (size - 1).bit_length() >> 1) // steps) if size else _GRID
    return -(-size // step) * step


def _spans(bounds: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(bounds.tolist()))


def _read(
    examples: Sequence[AnyExample],
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    answers_N: NDArray[np.bool_],
    *,
    causal: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[P] the tokens whose states are read, and [N] how many of each sequence."""
    first, count = (lengths - 1 if causal else np.zeros_like(lengths)), np.ones_like(lengths)
    if answers_N.any():
        prompts = np.array([example.label for example in examples]).astype(np.int64)
        first, count = np.where(answers_N, prompts - 1, first), np.where(answers_N, lengths - prompts, count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(starts + first, count) + within, count


def _on_the_grid(
    read: NDArray[np.int64], read_bounds: NDArray[np.int64], bounds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[P] the tokens that are read, each seat's followed by others of its own, as far as it has any; and the seats'
    bounds among them. Of what comes out for the others nothing is read, so no gradient goes back through it.
    """
    sizes = np.diff(read_bounds)
    wanted = np.array([_on_grid(int(size), _SEAT_STEPS) if size else 0 for size in sizes])
    last = np.flatnonzero(sizes)[-1]
    wanted[last] += _on_grid(int(wanted.sum()), _TOTAL_STEPS) - wanted.sum()
    parts = []
    for seat, (low, high) in enumerate(pairwise(read_bounds.tolist())):
        own = read[low:high]
        others = bounds[seat] + _others(own - bounds[seat], int(bounds[seat + 1] - bounds[seat]))
        parts += [own, others[: wanted[seat] - len(own)]]
    grown = [len(own) + len(others) for own, others in zip(parts[::2], parts[1::2], strict=True)]
    return np.concatenate(parts), np.cumsum([0, *grown])


def _types(examples: Sequence[AnyExample], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    if all(example.types is None for example in examples):
        return np.zeros(int(lengths.sum()), np.int64)
    parts = [
        np.zeros(int(length), np.int64) if example.types is None else example.types
        for example, length in zip(examples, lengths, strict=True)
    ]
    return np.concatenate(parts).astype(np.int64)


def _others(taken: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    free = np.ones(size, np.bool_)
    free[taken] = False
    return np.flatnonzero(free)


def _buckets(
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    sequence_R: NDArray[np.int64],
    position_R: NDArray[np.int64],
    *,
    causal: bool,
    device: torch.device,
) -> tuple[tuple[Bucket, ...], NDArray[np.int64], NDArray[np.int64]]:
    """The buckets, the places [R] of the real tokens, and the tokens [M] at all places."""
    order = np.argsort(lengths, kind="stable")
    rounded = -(-lengths[order] // _LENGTHS) * _LENGTHS
    place_of = np.empty(len(lengths), np.int64)  # where each sequence starts
    buckets, sources, start = [], [], 0
    for low, high in pairwise(_cuts(rounded)):
        members, length = order[low:high], int(rounded[high - 1])
        place_of[members] = start + np.arange(high - low) * length
        # The bucket is filled with sequences that it has already; nothing reads what comes out for the second ones.
        step = min(_COUNTS, max(1, _FILLER // length))
        sequences = np.resize(members, -(-(high - low) // step) * step)
        within = np.minimum(np.arange(length), lengths[sequences, None] - 1)
        sources.append((starts[sequences, None] + within).ravel())
        # With a causal mask a padded key comes after every real query, so nothing sees it.
        mask = None if causal else _mask(lengths[sequences], length, device)
        which, real = torch.from_numpy(sequences).to(device), tuple(lengths[sequences].tolist())
        buckets.append(Bucket(len(sequences), length, which, real, mask))
        start += len(sequences) * length
    return tuple(buckets), place_of[sequence_R] + position_R, np.concatenate(sources)


def _mask(lengths: NDArray[np.int64], length: int, device: torch.device) -> Tensor | None:
    """bool [count, 1, 1, L]; None where all is real."""
    if (lengths == length).all():
        return None
    return torch.from_numpy(np.arange(length) < lengths[:, None]).view(-1, 1, 1, length).to(device)


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
