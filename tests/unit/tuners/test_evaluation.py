"""How many forwards an evaluation takes, and that their number changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tuners.engine import Pack, evaluate
from tuners.engine.layout import Layout

SEATS: dict[str, dict[str, Any]] = {
    "a": {"rank": 4, "seed": 1},
    "b": {"rank": 16, "seed": 2, "classes": 3},
    "c": {"rank": 1, "seed": 3, "classes": 1},
}


@contextmanager
def counted(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Layout]]:
    """The base's forwards."""
    forwards: list[Layout] = []
    pooled = pack.base.pooled

    def counting(layout: Layout, *rest: Any, **more: Any) -> Any:
        forwards.append(layout)
        return pooled(layout, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(pack.base, "pooled", counting)
        yield forwards


@pytest.fixture
def pack(base_of: Any, seat: Any) -> Pack:
    """Trained a little."""
    made = Pack(base_of("bert"))
    for name, fields in SEATS.items():
        made.join(seat(name, **fields))
    for _ in range(3):
        made.step()
    return made


def test_all_seats_are_evaluated_in_one_forward(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(pack, monkeypatch) as forwards:
        pack.evaluate(pack.seats)
    assert [[len(rows.examples) for rows in layout.rows] for layout in forwards] == [[21, 21, 21]]


def test_rows_beyond_the_bound_go_into_further_forwards_by_length(
    pack: Pack, sentences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in pack.seats:
        own = pack._seats[name]
        own.spec = replace(own.spec, eval_sets=dict(own.spec.eval_sets) | {"more": sentences(200, seed=4)})
    with counted(pack, monkeypatch) as forwards:
        found = pack.evaluate(pack.seats)
    lengths = [[len(example.ids) for rows in layout.rows for example in rows.examples] for layout in forwards]
    tokens = sum(map(sum, lengths))
    assert tokens > evaluate._MAX_TOKENS
    assert len(forwards) == -(-tokens // evaluate._MAX_TOKENS)
    assert all(sum(each) <= evaluate._MAX_TOKENS for each in lengths)
    assert all(max(one) <= min(next_) for one, next_ in pairwise(lengths)), "like beside like"
    monkeypatch.setattr(evaluate, "_MAX_TOKENS", tokens)
    with counted(pack, monkeypatch) as forwards:
        whole = pack.evaluate(pack.seats)
    assert len(forwards) == 1
    for name in pack.seats:
        for split in ("dev", "more"):
            np.testing.assert_allclose(found[name][split].logits, whole[name][split].logits, atol=1e-5)
            assert found[name][split].labels.tolist() == whole[name][split].labels.tolist()
            assert found[name][split].loss == pytest.approx(whole[name][split].loss, abs=1e-5)
