"""Whatever sits beside a seat, and wherever it sits: what it trains stays the same."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuners.engine import Pack, SeatState

STEPS = 4
ROUNDING = 1e-11
"""In float64: other shapes add up in another order."""

SEATS = st.fixed_dictionaries(
    {
        "rank": st.sampled_from([1, 2, 3, 8, 17, 64]),
        "dropout": st.sampled_from([0.0, 0.1, 0.5]),
        "batch_size": st.integers(1, 9),
        "accumulation": st.integers(1, 3),
        "classes": st.integers(1, 4),
        "seed": st.integers(0, 2**32 - 1),
        "examples": st.integers(1, 30),
        "schedule": st.sampled_from(["linear", "cosine", "constant"]),
        "warmup_ratio": st.sampled_from([0.0, 0.3]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "clip_norm": st.sampled_from([0.1, 1.0, 1e9]),
        "epochs": st.integers(1, 9),
        "target_modules": st.sampled_from([(), ("dense",), ("query", "key", "value", "dense")]),
    }
)
COMPOSITIONS = st.lists(SEATS, min_size=2, max_size=5)
COMPOSED = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def packed(base: Any, seat: Any, fields: dict[str, dict[str, Any]], **options: Any) -> Pack:
    pack = Pack(base, **options)
    for name, values in fields.items():
        pack.join(seat(name, **values))
    return pack


def trained(pack: Pack, steps: int = STEPS) -> dict[str, torch.Tensor]:
    """Each seat's parameters after some steps."""
    for _ in range(steps):
        pack.step()
    return {name: pack.state(name).tensors["theta"] for name in pack.seats}


@COMPOSED
@given(composition=COMPOSITIONS, data=st.data())
def test_a_seat_is_alone_what_it_is_among_others_in_any_order(
    composition: list[dict[str, Any]], data: st.DataObject, base_of: Any, seat: Any
) -> None:
    base = base_of("bert", dtype="float64")
    fields = {str(place): values for place, values in enumerate(composition)}
    together = trained(packed(base, seat, fields))
    order = data.draw(st.permutations(list(fields)))
    cut = data.draw(st.sampled_from([8, 64, 100_000]))
    moved = trained(packed(base, seat, {name: fields[name] for name in order}, max_tokens=cut))
    for name, values in fields.items():
        alone = trained(packed(base, seat, {name: values}))[name]
        torch.testing.assert_close(alone, together[name], atol=ROUNDING, rtol=0)
        torch.testing.assert_close(moved[name], together[name], atol=ROUNDING, rtol=0)


@COMPOSED
@given(composition=COMPOSITIONS, data=st.data())
def test_one_that_is_poisoned_leaves_the_others_as_they_are(
    composition: list[dict[str, Any]], data: st.DataObject, base_of: Any, seat: Any
) -> None:
    base = base_of("bert")
    fields = {str(place): values for place, values in enumerate(composition)}
    bad = data.draw(st.sampled_from(list(fields)))
    poison = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))

    def after_a_step(value: float | None) -> dict[str, torch.Tensor]:
        pack = packed(base, seat, fields)
        if value is not None:
            pack._seats[bad].row.theta[: pack._seats[bad].row.size] = value
        return trained(pack, 1)

    healthy, poisoned = after_a_step(None), after_a_step(poison)
    for name in fields.keys() - {bad}:
        assert torch.equal(healthy[name], poisoned[name]), name


@COMPOSED
@given(composition=COMPOSITIONS, data=st.data())
def test_one_that_comes_and_goes_through_its_bytes_loses_nothing_and_the_others_neither(
    composition: list[dict[str, Any]], data: st.DataObject, base_of: Any, seat: Any
) -> None:
    base = base_of("bert", dtype="float64")
    fields = {str(place): values for place, values in enumerate(composition)}
    name = data.draw(st.sampled_from(list(fields)))
    left_after = data.draw(st.integers(0, STEPS))
    stays = trained(packed(base, seat, fields))[name]
    first, second = packed(base, seat, fields), packed(base, seat, {"other": {"rank": 5, "seed": 1}})
    trained(first, left_after)
    second.join(seat(name, **fields[name]), SeatState.from_bytes(first.state(name).to_bytes()))
    first.leave(name)
    behind, whole = trained(first, 1), trained(packed(base, seat, fields), left_after + 1)
    for other in fields.keys() - {name}:
        torch.testing.assert_close(behind[other], whole[other], atol=ROUNDING, rtol=0)
    torch.testing.assert_close(trained(second, STEPS - left_after)[name], stays, atol=ROUNDING, rtol=0)


def test_another_mask_would_be_found(base_of: Any, seat: Any) -> None:
    """The comparison is sharp: a neighbour's mask in place of one's own is far above the tolerance."""
    base = base_of("bert", dtype="float64")
    fields = {"a": {"dropout": 0.1, "seed": 1}, "b": {"dropout": 0.1, "seed": 2}}
    right = trained(packed(base, seat, fields))
    wrong = trained(packed(base, seat, fields | {"a": fields["a"] | {"seed": 3}}))
    assert (right["a"] - wrong["a"]).abs().max() > 1e3 * ROUNDING
    torch.testing.assert_close(right["b"], wrong["b"], atol=ROUNDING, rtol=0)
