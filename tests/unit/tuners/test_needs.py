"""What would fit into less memory: in the order of what it costs, and with the numbers of what was changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tuners.needs import Need, advice, told

NEED = Need(
    process=100,
    base=400,
    seat=50,
    token=2.0,
    tokens=100.0,
    longest=64,
    forward=2048,
    max_length=128,
    seats=4,
    packs=1,
    parameters=100_000_000,
    recomputed=0.5,
    quantised=60,
    rank=8,
)
LEAST = 100 + 400 + 4 * 50 + 64 * 2


def changes(limit: int, **fields: Any) -> list[tuple[str, int]]:
    return [(change.what, change.bytes) for change in advice(replace(NEED, **fields), limit)]


def test_a_need_is_the_sum_of_its_parts() -> None:
    assert (NEED.least, NEED.peak) == (LEAST, 100 + 400 + 4 * 50 + 400 * 2)
    assert replace(NEED, forward=200).peak == 100 + 400 + 4 * 50 + 200 * 2
    assert replace(NEED, tokens=5).least == 100 + 400 + 4 * 50 + 20 * 2


def test_what_fits_needs_no_advice() -> None:
    assert advice(NEED, NEED.peak) == ()


def test_smaller_forwards_come_by_themselves() -> None:
    assert changes(1000) == [("forwards of 150 tokens", 1000)]
    assert changes(LEAST) == [("forwards of 64 tokens", LEAST)]


def test_each_change_that_fits_is_told_the_cheapest_first() -> None:
    assert changes(LEAST - 40) == [
        ("resources.seats: 3", LEAST - 50),
        ("resources.gradient_checkpointing: true", LEAST - 96),
        ("tuner.method: qlora", LEAST - 340),
        ("tuner.rank: 4", LEAST - 100),
        ("train.max_length: 32", LEAST - 64),
        ("model.id: one of at most 90M parameters", LEAST - 40),
    ]


def test_what_does_not_fit_is_not_told() -> None:
    # Without seats, activations and all of the adapters there are 500 left of the base and the process.
    assert changes(520) == [
        ("tuner.method: qlora", LEAST - 340),
        ("model.id: one of at most 23M parameters", 520),
    ]


@pytest.mark.parametrize(
    ("fields", "limit", "what"),
    [
        ({"seats": 1, "kept": 30 << 20}, 10 << 20, "tuner.kept_mib: 9"),
        ({"seats": 1, "packs": 4}, 600, "resources.packs: 3"),
        ({"seats": 1, "packs": 4}, 400, "resources.packs: 2"),
        ({"quantised_by": "tuner.dequantise: step"}, 500, "tuner.dequantise: step"),
        ({"adapter": 1, "seat": 4000, "seats": 1, "rank": None, "quantised": None}, 700, "tuner.method: lora"),
        ({"seats": 1, "recomputed": None, "quantised": None, "rank": None}, 640, "train.max_length: 32"),
    ],
)
def test_the_first_that_fits(fields: dict[str, Any], limit: int, what: str) -> None:
    first = advice(replace(NEED, **fields), limit)[0]
    assert first.what == what
    assert first.bytes <= first.limit


def test_fewer_packs_leave_more_to_each() -> None:
    (change, *_) = advice(replace(NEED, seats=1, packs=4), 400)
    assert (change.what, change.bytes, change.limit) == ("resources.packs: 2", 678, 800)


def test_several_together_where_no_one_does_and_no_more_than_are_needed() -> None:
    seat, recompute, qlora = "resources.seats: 1", "resources.gradient_checkpointing: true", "tuner.method: qlora"
    assert changes(300)[0] == (f"{seat} and {recompute} and {qlora}", 100 + 60 + 50 + 64 // 2)
    assert changes(340)[0] == (f"{seat} and {qlora}", 100 + 60 + 50 + 64 * 2)


def test_nothing_helps_where_the_process_alone_is_too_large() -> None:
    assert advice(NEED, 90) == ()
    assert told(advice(NEED, 90)) == "nothing that can be set would fit"


def test_one_line_says_it() -> None:
    mib = 1 << 20
    need = replace(NEED, process=100 * mib, base=400 * mib, seat=50 * mib, token=2 * mib, quantised=60 * mib)
    line = told(advice(need, (LEAST - 40) * mib))
    assert line.startswith(
        "by estimate this would fit: resources.seats: 3 (778 MiB; fewer trials at once); resources.g"
    )
    assert "tuner.method: qlora (488 MiB; a base in 4 bits: slower, and a little less exact); " in line
    assert "\n" not in line
