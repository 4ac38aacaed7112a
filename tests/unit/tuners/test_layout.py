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
    assert layout.tokens == sum(lengths)
    assert layout.places.unique().numel() == layout.tokens
    starts = np.cumsum([0, *lengths]).tolist()
    assert layout.pooled.tolist() == [end - 1 for end in starts[1:]] if causal else starts[:-1]
    for bucket in layout.buckets:
        for row, sequence in enumerate(bucket.sequences.tolist()):
            start, length = starts[sequence], lengths[sequence]
            here = bucket.start + row * bucket.length
            assert layout.places[start : start + length].tolist() == list(range(here, here + length))
            assert length <= bucket.length
            assert bucket.mask is None or bucket.mask[row, 0, 0].sum() == length
            assert bucket.mask is not None or causal or length == bucket.length
    assert sum(bucket.count * bucket.length for bucket in layout.buckets) == layout.padded


def test_positions_start_over_and_spans_name_the_seats() -> None:
    rows = [Rows(examples(lengths), None) for lengths in ([3, 2], [], [1])]
    layout = lay_out(rows, causal=False, first_position=1, device=CPU)
    assert layout.positions.tolist() == [[1, 2, 3, 1, 2, 1]]
    assert layout.token_spans == ((0, 5), (5, 5), (5, 6))
    assert layout.row_spans == ((0, 2), (2, 2), (2, 3))
    assert layout.pooled.tolist() == [0, 3, 5]
    assert layout.token_keys is None


@pytest.mark.parametrize("lengths", [[5] * 40, [3, 3, 3, 60, 60, 60, 60] * 8])
def test_padding_stays_small(lengths: list[int]) -> None:
    layout: Layout = lay_out([Rows(examples(lengths), None)], causal=False, first_position=0, device=CPU)
    assert layout.padded == layout.tokens


def test_token_types_are_zero_where_an_example_has_none() -> None:
    given_types: Any = np.array([0, 1, 1], np.int8)
    pair = [Example(np.ones(3, np.int32), given_types, 0.0), Example(np.ones(2, np.int32), None, 0.0)]
    layout = lay_out([Rows(pair, None)], causal=False, first_position=0, device=CPU)
    assert layout.types.tolist() == [[0, 1, 1, 0, 0]]
