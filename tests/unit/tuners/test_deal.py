from __future__ import annotations

import numpy as np
import pytest

from tuners.engine.deal import cut, deal, forwards, together

STEP = {"a": [5, 3, 9], "none": [], "b": [20], "c": [1] * 12}


def rows(parts: list[tuple[str, int, int]]) -> list[tuple[str, int]]:
    return [(name, row) for name, low, high in parts for row in range(low, high)]


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 40])
def test_every_row_is_dealt_once_and_in_its_order(workers: int) -> None:
    shares = deal(STEP, workers)
    assert len(shares) == workers
    dealt = [row for share in shares for row in rows(share)]
    assert dealt == [(name, row) for name, sizes in STEP.items() for row in range(len(sizes))]


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_shares_are_even_in_tokens(workers: int) -> None:
    draw = np.random.default_rng(0)
    lengths = {str(seat): draw.integers(3, 40, 16).tolist() for seat in range(5)}
    total = sum(map(sum, lengths.values()))
    for share in deal(lengths, workers):
        tokens = sum(lengths[name][row] for name, row in rows(share))
        assert abs(tokens - total / workers) <= 40


def test_a_long_sequence_goes_alone() -> None:
    found = list(cut([("a", 0, 3), ("b", 0, 1), ("c", 0, 12)], STEP, 10))
    assert found == [[("a", 0, 2)], [("a", 2, 3)], [("b", 0, 1)], [("c", 0, 10)], [("c", 10, 12)]]


def test_a_seat_is_cut_only_where_a_forward_would_stay_half_empty() -> None:
    sizes = {"a": [4, 4], "b": [4, 4], "c": [1, 1], "d": [8, 8]}
    parts = [(name, 0, 2) for name in sizes]
    assert list(cut(parts, sizes, 15)) == [
        [("a", 0, 2)],
        [("b", 0, 2), ("c", 0, 2)],
        [("d", 0, 1)],  # too long for any
        [("d", 1, 2)],
    ]
    assert list(cut(parts[2:], sizes, 16)) == [[("c", 0, 2), ("d", 0, 1)], [("d", 1, 2)]]


def test_all_workers_run_as_many_forwards() -> None:
    per_worker = [forwards(STEP, max_tokens=10, rank=rank, workers=3) for rank in range(3)]
    assert len({len(each) for each in per_worker}) == 1
    assert [] in per_worker[2] or [] in per_worker[1], "with 20 tokens in one row some have less to do"
    dealt = [row for each in per_worker for parts in each for row in rows(parts)]
    assert sorted(dealt) == sorted((name, row) for name, sizes in STEP.items() for row in range(len(sizes)))


def test_what_seats_read_together_lies_in_one_forward() -> None:
    lengths = {"a": [3, 4, 5], "own": [6, 6], "b": [3, 4, 5], "c": [3, 4, 5]}
    reads = {"a": 1, "own": 2, "b": 1, "c": 1}
    assert together(lengths, reads, max_tokens=24) == [
        [("a", 0, 2), ("b", 0, 2), ("c", 0, 2)],
        [("a", 2, 3), ("b", 2, 3), ("c", 2, 3)],
        [("own", 0, 2)],
    ]


@pytest.mark.parametrize("most", [1, 4, 9, 11, 30, 1000])
def test_every_row_is_there_once_and_no_forward_is_too_long(most: int) -> None:
    draw = np.random.default_rng(0)
    sizes = [draw.integers(1, 12, 7).tolist() for _ in range(3)]
    lengths = {str(seat): sizes[seat % 3] for seat in range(8)}
    found = together(lengths, {name: int(name) % 3 for name in lengths}, max_tokens=most)
    assert sorted(row for parts in found for row in rows(parts)) == [(n, r) for n in lengths for r in range(7)]
    for parts in found:
        tokens = [lengths[name][row] for name, row in rows(parts)]
        assert sum(tokens) <= most or len(tokens) == 1
