from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuners.engine import Example
from tuners.engine.layout import Layout, Rows, lay_out

CPU = torch.device("cpu")


def examples(lengths: list[int]) -> list[Example]:
    return [Example(np.full(n, 10 * k + 1, np.int32), None, 0.0) for k, n in enumerate(lengths)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), max_size=12), min_size=1, max_size=5).filter(any), st.booleans())
def test_every_token_has_a_place_of_its_own_in_a_bucket_of_its_sequence(seats: list[list[int]], causal: bool) -> None:
    layout = lay_out([Rows(examples(s), None) for s in seats], causal=causal, first_position=0, device=CPU)
    lengths = [n for s in seats for n in s]
    real = sorted(set(range(layout.tokens)) - set(layout.fillers.tolist()))
    assert len(set(layout.places[real].tolist())) == len(real) == sum(lengths)
    # Each sequence has an id of its own: where it starts in the order of the tokens.
    starts = (layout.pooled - (torch.tensor(lengths) - 1 if causal else 0)).tolist()
    assert [
        token for start, length in zip(starts, lengths, strict=True) for token in range(start, start + length)
    ] == real
    here = 0
    for bucket in layout.buckets:
        for row, sequence in enumerate(bucket.sequences.tolist()):
            start, length = starts[sequence], lengths[sequence]
            assert length <= bucket.length
            read = layout.sources[here : here + bucket.length].tolist()
            assert read == [start + min(place, length - 1) for place in range(bucket.length)], "it reads only itself"
            first = bucket.sequences.tolist().index(sequence) == row
            if first:
                assert layout.places[start : start + length].tolist() == list(range(here, here + length))
            assert bucket.mask is None or bucket.mask[row, 0, 0].sum() == length
            assert bucket.mask is not None or causal or length == bucket.length
            here += bucket.length
    assert here == len(layout.sources)
    assert sorted({*layout.padding.tolist(), *layout.places[real].tolist()}) == list(range(here))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), max_size=12), min_size=1, max_size=5).filter(any))
def test_a_seats_filler_lies_behind_it_and_reads_what_is_its_own(seats: list[list[int]]) -> None:
    layout = lay_out([Rows(examples(s), None) for s in seats], causal=False, first_position=0, device=CPU)
    end = 0
    for lengths, (start, after) in zip(seats, layout.token_spans, strict=True):
        assert start == end
        end = after
        behind = list(range(start + sum(lengths), after))
        assert set(behind) <= set(layout.fillers.tolist())
        assert (after - start) % 16 == 0
        assert all(layout.places[filler] == layout.places[behind[0] - 1] for filler in behind)
    assert end == layout.tokens


def test_positions_start_over_and_spans_name_the_seats() -> None:
    rows = [Rows(examples(lengths), None) for lengths in ([3, 2], [], [1])]
    layout = lay_out(rows, causal=False, first_position=1, device=CPU)
    assert layout.positions[0, :5].tolist() == [1, 2, 3, 1, 2]
    assert layout.positions[0, 5:].tolist() == [1] * 27
    assert layout.token_spans == ((0, 16), (16, 16), (16, 32))
    assert layout.row_spans == ((0, 2), (2, 2), (2, 3))
    assert layout.pooled.tolist() == [0, 3, 16]
    assert layout.longest == 3
    assert layout.token_keys is None


@pytest.mark.parametrize("lengths", [[8] * 40, [8, 8, 8, 64, 64, 64, 64, 8] * 8])
def test_what_fits_the_grid_is_not_padded(lengths: list[int]) -> None:
    layout: Layout = lay_out([Rows(examples(lengths), None)], causal=False, first_position=0, device=CPU)
    assert len(layout.sources) == layout.tokens == sum(lengths)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("length", [8, 64, 96, 128, 512])
def test_copies_that_fill_a_bucket_stay_few(count: int, length: int) -> None:
    layout: Layout = lay_out([Rows(examples([length] * count), None)], causal=False, first_position=0, device=CPU)
    assert len(layout.sources) - count * length < 256


@pytest.mark.parametrize("tokens", [1, 17, 200, 1000, 8000])
def test_filler_stays_small(tokens: int) -> None:
    layout: Layout = lay_out([Rows(examples([1] * tokens), None)], causal=False, first_position=0, device=CPU)
    assert layout.tokens - tokens < max(16, tokens / 8)


def test_forwards_have_few_sizes() -> None:
    draw = np.random.default_rng(0)
    sizes = set()
    for _ in range(300):
        seats = [Rows(examples(draw.integers(4, 48, 32).tolist()), None) for _ in range(draw.integers(1, 5))]
        sizes.add(lay_out(seats, causal=False, first_position=0, device=CPU).tokens)
    assert len([size for size in sizes if 1024 < size <= 2048]) <= 16


def test_a_seat_without_rows_gets_no_filler() -> None:
    seats = [Rows(examples([20] * 14), None), Rows((), None)]
    layout = lay_out(seats, causal=False, first_position=0, device=CPU)
    assert layout.token_spans == ((0, 288), (288, 288))


def test_token_types_are_zero_where_an_example_has_none() -> None:
    given_types: Any = np.array([0, 1, 1], np.int8)
    pair = [Example(np.ones(3, np.int32), given_types, 0.0), Example(np.ones(2, np.int32), None, 0.0)]
    layout = lay_out([Rows(pair, None)], causal=False, first_position=0, device=CPU)
    assert layout.types[0, :5].tolist() == [0, 1, 1, 0, 0]


def answered(length: int, *, first: int) -> Example:
    """Its second half is the answer."""
    return Example(np.arange(first, first + length, dtype=np.int32), None, float(-(-length // 2)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(2, 40), max_size=6), min_size=1, max_size=4).filter(any))
def test_what_is_computed_to_the_end_has_few_sizes_and_what_is_read_of_it_is_the_answers(
    seats: list[list[int]],
) -> None:
    batch = [
        Rows([answered(n, first=100 * row) for row, n in enumerate(lengths)], None, answers=True) for lengths in seats
    ]
    layout = lay_out(batch, causal=True, first_position=0, device=torch.device("cpu"))
    pooled = layout.pooled.tolist()
    assert len(set(pooled)) == len(pooled), "a token that were there twice would have its gradient twice"
    before = 0
    for rows, (start, end), (low, high), (read, stop) in zip(
        batch, layout.token_spans, layout.pooled_spans, layout.read_spans, strict=True
    ):
        assert (low, read) == (before, before)
        before = high
        assert all(start <= token < end for token in pooled[low:high])
        meant = [word for each in rows.examples for word in each.ids[int(each.label) - 1 : -1].tolist()]
        assert layout.ids[0, pooled[low:stop]].tolist() == meant
        unread = (end - start) - (stop - low)
        assert (high - low) % 16 == 0 or high - stop == unread, "on the grid, as far as there are tokens"
    assert before == len(pooled)
