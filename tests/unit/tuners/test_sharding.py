from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.unit.tuners import sharded
from tests.unit.tuners.sharded import Case, Course
from tests.unit.tuners.workers import in_workers

SEATS: Mapping[str, Mapping[str, Any]] = {
    "a": {"rank": 4, "seed": 1, "dropout": 0.1},
    "one row": {"rank": 16, "seed": 2, "batch_size": 1},
    "large": {"rank": 8, "seed": 3, "batch_size": 7, "accumulation": 3, "classes": 3, "schedule": "cosine"},
    "two rows": {"rank": 1, "seed": 4, "batch_size": 2, "classes": 1, "weight_decay": 0.1},
}
ROUNDING = {"float32": 3e-5, "float64": 1e-11}
"""The workers' sums are added up in another order; in float64 nothing else is left."""


@pytest.fixture(scope="module")
def cases(tiny: Callable[..., str]) -> dict[str, Case]:
    bert, qwen = tiny("bert"), tiny("qwen2")
    last_only = {"rank": 2, "target_modules": ("layers.1.mlp.down_proj",)}
    return {
        "bert": Case(bert, SEATS, steps=7),
        "bert in float64": Case(bert, SEATS, dtype="float64", steps=5),
        "qwen2 in 4 bits": Case(qwen, SEATS, "nf4-double", steps=5),
        "bert computed again": Case(bert, SEATS, checkpointing=True, steps=3),
        "qwen2 in 4 bits computed again": Case(qwen, SEATS, "nf4-double", checkpointing=True, steps=3),
        "many forwards": Case(bert, SEATS, max_tokens=24, steps=2),
        "one row in all": Case(qwen, {"one row": SEATS["one row"]}, steps=3),
        # What is to be trained on one worker is not on another.
        "other layers": Case(qwen, {"late": last_only, "early": {"rank": 2, "seed": 5}}, steps=3),
    }


@pytest.fixture(scope="module")
def alone(cases: dict[str, Case]) -> dict[str, Course]:
    return {name: sharded.course(case) for name, case in cases.items()}


@pytest.fixture(scope="module", params=[1, 2, 3])
def together(request: pytest.FixtureRequest, cases: dict[str, Case]) -> list[dict[str, Course]]:
    return in_workers(request.param, sharded.courses, cases)


def test_any_number_of_workers_gives_the_same_curves(
    together: list[dict[str, Course]], alone: dict[str, Course], cases: dict[str, Case]
) -> None:
    for rank in together:
        for name, expected in alone.items():
            for seat, losses in expected.losses.items():
                assert len(losses) == cases[name].steps
                rounding = ROUNDING[cases[name].dtype]
                assert rank[name].losses[seat] == pytest.approx(losses, abs=rounding), (name, seat)
                np.testing.assert_allclose(rank[name].logits[seat], expected.logits[seat], atol=1e-4)
                assert rank[name].eval_loss[seat] == pytest.approx(expected.eval_loss[seat], abs=1e-4)


def test_every_worker_has_the_same_seats_to_the_bit(together: list[dict[str, Course]]) -> None:
    for rank in together[1:]:
        for name, expected in together[0].items():
            assert rank[name].states == expected.states
            assert rank[name].losses == expected.losses
            assert all(np.array_equal(rank[name].logits[seat], found) for seat, found in expected.logits.items())


def test_each_worker_holds_its_share_of_the_base(together: list[dict[str, Course]], alone: dict[str, Course]) -> None:
    for rank in together:
        for name, whole in alone.items():
            # Shares are whole rows. On every worker: an encoder's pooler, the tables of 14 quantised weights.
            everywhere = 14 * 1200 if "4 bits" in name else 64 * 65 * (8 if "64" in name else 4)
            assert rank[name].held <= 1.05 * (whole.held - everywhere) / len(together) + everywhere
            assert sum(each[name].held for each in together) >= whole.held


@pytest.mark.parametrize("quantisation", ["none", "nf4-double"])
def test_nothing_else_of_the_base_stays_in_memory(quantisation: Any, tiny: Callable[..., str]) -> None:
    case = Case(tiny("qwen2"), {"a": {"rank": 4}}, quantisation, steps=2)
    buffer = 0 if quantisation == "none" else 4 * 128 * 64
    for held, found in in_workers(3, sharded.memory, case):
        assert found <= held + buffer + 5_000


def test_a_step_gathers_the_base_once_a_pass_and_sums_once_for_all_seats(cases: dict[str, Case]) -> None:
    # Forward: the embeddings, two layers, the last norm; backward: all but the embeddings. Then gradients, and what
    # each worker has found out: the norms from rank 0, the losses from all, each as its size and its bytes.
    step = {"_allgather_base_": 7, "allreduce_": 1, "broadcast_": 2, "allgather_": 2}
    for name in ("one row in all", "other layers"):
        for rank in in_workers(2, sharded.traffic, replace(cases[name], steps=2)):
            assert rank == [step] * 2


@pytest.mark.parametrize("workers", [2, 3])
def test_a_seat_that_trains_the_base_has_all_of_it_on_every_worker(workers: int, tiny: Callable[..., str]) -> None:
    seat = {"seed": 1, "learning_rate": 1e-3, "weight_decay": 0.1}
    case = Case(tiny("bert"), {"a": seat}, dtype="float64", steps=6, method="full")
    alone = sharded.course(case)
    for rank in in_workers(workers, sharded.courses, {"": case}):
        assert rank[""].losses["a"] == pytest.approx(alone.losses["a"], abs=1e-11)
        np.testing.assert_allclose(rank[""].logits["a"], alone.logits["a"], atol=1e-6)
        assert rank[""].held == alone.held


@pytest.mark.parametrize("tied", [True, False])
def test_answers_do_not_depend_on_the_workers(tied: bool, generating: Callable[..., str]) -> None:
    late = {"rank": 8, "seed": 2, "max_new_tokens": 5}
    seats: Mapping[str, Mapping[str, Any]] = {"a": {"rank": 4, "learning_rate": 1e-2}, "b": late}
    case = Case(generating("llama", tied=tied), seats, dtype="float64", steps=10, answers=True)
    alone = sharded.course(case)
    assert {len(answer) for answer in alone.answers["b"]} != {0}
    for rank in in_workers(2, sharded.courses, {"": case}):
        assert rank[""].answers == alone.answers
        for name in seats:
            assert rank[""].losses[name] == pytest.approx(alone.losses[name], abs=1e-11)
            assert rank[""].eval_loss[name] == pytest.approx(alone.eval_loss[name], abs=1e-9)


def test_a_diverged_seat_leaves_its_neighbours_bit_identical(tiny: Callable[..., str]) -> None:
    def case(rate: float) -> Case:
        return Case(tiny("bert"), {**SEATS, "bad": {"rank": 4, "seed": 9, "learning_rate": rate}}, steps=2)

    wild, tame = (in_workers(2, sharded.courses, {"": case(rate)})[0][""] for rate in (1e30, 1e-3))
    assert "bad" in wild.diverged
    assert tame.diverged == {}
    for name in SEATS:
        assert wild.states[name] == tame.states[name], name


def test_a_pack_goes_on_with_another_number_of_workers(cases: dict[str, Case], alone: dict[str, Course]) -> None:
    first = replace(cases["bert"], steps=3)
    then = replace(first, steps=2, states=in_workers(2, sharded.courses, {"": first})[0][""].states)
    last = replace(first, steps=2, states=in_workers(3, sharded.courses, {"": then})[0][""].states)
    found = sharded.course(last)
    for name, losses in alone["bert"].losses.items():
        assert found.losses[name] == pytest.approx(losses[5:], abs=ROUNDING["float32"])
        np.testing.assert_allclose(found.logits[name], alone["bert"].logits[name], atol=1e-4)


def test_memory_that_runs_out_ends_a_pack_of_several_workers(cases: dict[str, Case]) -> None:
    # The other workers are in the middle of a layer, and cannot begin the step anew.
    case = replace(cases["bert"], max_tokens=400)
    assert in_workers(2, sharded.out_of_memory, case) == [("OutOfMemoryError", 400)] * 2
