"""Who computes which rows of a step, in which forward. Pure: every worker works out the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import accumulate

Part = tuple[str, int, int]
"""Of a step: a seat, its first row and the row after its last in this forward."""


def deal(lengths: Mapping[str, Sequence[int]], workers: int) -> list[list[Part]]:
    """Each worker's rows of a step, by the seats' rows' tokens.

    All rows laid end to end are cut where the tokens are, so that shares differ by less than two sequences, a seat's
    rows on a worker follow each other, and most seats are on one worker only.
    """
    rows = [(name, row) for name, sizes in lengths.items() for row in range(len(sizes))]
    sizes = [size for each in lengths.values() for size in each]
    ends = list(accumulate(sizes))
    shares: list[list[Part]] = [[] for _ in range(workers)]
    for (name, row), size, end in zip(rows, sizes, ends, strict=True):
        share = shares[(2 * end - size) * workers // (2 * ends[-1])]
        if share and share[-1][0] == name:
            share[-1] = (name, share[-1][1], row + 1)
        else:
            share.append((name, row, row + 1))
    return shares


def cut(parts: Sequence[Part], lengths: Mapping[str, Sequence[int]], max_tokens: int) -> Iterator[list[Part]]:
    """Forwards of at most `max_tokens`; a longer sequence goes alone.

    A seat is cut where a forward would stay half empty without: parts of a seat have sizes of their own every time.
    """
    found: list[Part] = []
    tokens = 0
    for name, low, high in parts:
        first = low
        whole = sum(lengths[name][low:high])
        if tokens + whole > max_tokens >= whole and 2 * tokens >= max_tokens:
            yield found
            found, tokens = [], 0
        for row in range(low, high):
            size = lengths[name][row]
            if tokens and tokens + size > max_tokens:
                yield [*found, (name, first, row)] if row > first else found
                found, tokens, first = [], 0, row
            tokens += size
        found.append((name, first, high))
    if found:
        yield found


def forwards(lengths: Mapping[str, Sequence[int]], *, max_tokens: int, rank: int, workers: int) -> list[list[Part]]:
    """A worker's forwards of a step: as many as every other's, some of them without rows."""
    cuts = [list(cut(share, lengths, max_tokens)) for share in deal(lengths, workers)]
    most = max(map(len, cuts))
    return cuts[rank] + [[] for _ in range(most - len(cuts[rank]))]


def together(
    lengths: Mapping[str, Sequence[int]], reads: Mapping[str, Hashable], *, max_tokens: int
) -> list[list[Part]]:
    """One worker's forwards of a step in which seats may read the same: `reads` is equal for those that do.

    A row of theirs is in one forward for as many of them as fit into it; whole seats one after another would have it
    in as many forwards as they take.
    """
    alike: dict[Hashable, list[str]] = {}
    for name in lengths:
        alike.setdefault(reads[name], []).append(name)
    teams = {team[0]: team for names in alike.values() for team in _teams(names, lengths[names[0]], max_tokens)}
    sizes = {first: [size * len(team) for size in lengths[first]] for first, team in teams.items()}
    whole = [(first, 0, len(rows)) for first, rows in sizes.items()]
    return [
        [(name, low, high) for first, low, high in parts for name in teams[first]]
        for parts in cut(whole, sizes, max_tokens)
    ]


def _teams(names: Sequence[str], rows: Sequence[int], max_tokens: int) -> Iterator[Sequence[str]]:
    """As even as can be, of at most as many seats as may have the longest row in one forward."""
    most = max(1, max_tokens // max(rows, default=1))
    count = -(-len(names) // most)
    return (names[len(names) * team // count : len(names) * (team + 1) // count] for team in range(count))
