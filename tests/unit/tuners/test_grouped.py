"""All seats' parts of a layer in products for all, as on a device, beside the loop over the seats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import grouped_mm

from tests.unit.tuners.conftest import load_base
from tuners.engine import Base, BaseSpec, Pack, kernels
from tuners.lora.grouped import GroupedLora

MIXED: list[dict[str, Any]] = [
    {"rank": 4, "seed": 1, "batch_size": 8, "dropout": 0.1},
    {"rank": 16, "seed": 2, "batch_size": 5, "classes": 3},
    {"rank": 1, "seed": 3, "batch_size": 2, "classes": 1, "weight_decay": 0.1},
    {"rank": 11, "seed": 4, "batch_size": 13, "dropout": 0.3, "target_modules": ("q_proj", "k_proj", "down_proj")},
]


@pytest.fixture(scope="module")
def bases(tiny: Any) -> dict[str, tuple[Base, Base]]:
    found = {}
    for dtype in ("float32", "bfloat16"):
        loop, grouped = (load_base(BaseSpec(tiny("llama"), dtype=dtype)) for _ in range(2))
        loop.kernels = replace(loop.kernels, adapters="loop")
        grouped.kernels = replace(grouped.kernels, adapters="grouped")
        found[dtype] = (loop, grouped)
    return found


def trained(base: Base, seat: Any, fields: list[dict[str, Any]], steps: int) -> tuple[list[list[float]], Pack]:
    pack = Pack(base)
    for number, values in enumerate(fields):
        pack.join(seat(str(number), **values))
    return [[report.loss for report in pack.step().values()] for _ in range(steps)], pack


def test_products_for_all_are_the_loop(bases: Any, seat: Any) -> None:
    # The same sums in another order.
    losses = [trained(base, seat, MIXED, 20)[0] for base in bases["float32"]]
    for one, other in zip(*losses, strict=True):
        assert one == pytest.approx(other, rel=3e-5)


def test_products_for_all_round_as_little_as_the_loop(bases: Any, seat: Any) -> None:
    # bfloat16 leaves 8 bits of each number that is summed, and 20 steps carry it on: a step's loss of a seat with two
    # rows is off by up to a tenth either way, so that what is held against float32 is the mean over the steps.
    exact, _ = trained(bases["float32"][0], seat, MIXED, 20)
    loop, grouped = (
        np.abs(np.array(trained(base, seat, MIXED, 20)[0]) / np.array(exact) - 1).mean(0) for base in bases["bfloat16"]
    )
    assert (loop < 0.04).all()
    assert (grouped < 2 * loop).all()


def test_evaluations_are_the_same(bases: Any, seat: Any) -> None:
    found = []
    for base in bases["float32"]:
        _, pack = trained(base, seat, MIXED, 3)
        found.append(pack.evaluate(["3", "0", "2"]))
    for name in ("3", "0", "2"):
        torch.testing.assert_close(*(torch.from_numpy(each[name]["dev"].logits) for each in found), atol=3e-5, rtol=0)


def test_padded_ranks_stay_out(bases: Any, seat: Any) -> None:
    _, pack = trained(bases["float32"][1], seat, MIXED, 1)
    slots = pack._trained_by(("0", "1", "2", "3"))
    assert not isinstance(slots, tuple)
    for group in slots.values():
        assert isinstance(group, GroupedLora)
        a_SRI, b_SOR = group._stacked(torch.float32)
        for place, slot in zip(group._places, group._slots, strict=True):
            rank = len(slot.a)
            assert torch.equal(a_SRI[place, :rank], slot.a)
            assert torch.equal(b_SOR[place, :, :rank], slot.b)
            assert not a_SRI[place, rank:].any()
            assert not b_SOR[place, :, rank:].any()
        assert a_SRI.shape[1] % 8 == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_diverged_seat_leaves_its_neighbours_bit_identical(dtype: str, bases: Any, seat: Any) -> None:
    def states(rate: float) -> dict[str, Any]:
        fields = [MIXED[0], {"rank": 4, "seed": 9, "learning_rate": rate}, MIXED[2]]
        _, pack = trained(bases[dtype][1], seat, fields, 2)
        return {name: pack.state(name).tensors["theta"] for name in ("0", "2")}

    wild, tame = states(1e30), states(1e-3)
    for name in wild:
        assert torch.isfinite(wild[name]).all()
        assert torch.equal(wild[name], tame[name])


def test_the_trial_of_grouped_products_finds_them_right_and_would_find_them_wrong(monkeypatch: Any) -> None:
    device = torch.device("cpu")
    assert kernels._tried("grouped products", kernels._grouped_works, device, torch.bfloat16) == ""
    monkeypatch.setattr(kernels, "grouped_mm", lambda x, w, offs: grouped_mm(x, w, offs=offs.flip(0).sort().values - 8))
    assert "is wrong here by" in kernels._tried("grouped products", kernels._grouped_works, device, torch.bfloat16)
    said = kernels._tried("varlen attention", kernels._varlen_works, device, torch.bfloat16)
    assert said.startswith("varlen attention cannot be used here: ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_takes_the_reference(dtype: torch.dtype) -> None:
    chosen = kernels.kernels(torch.device("cpu"), dtype)
    assert (chosen.attention, chosen.adapters) == ("buckets", "loop")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_device_that_can_takes_its_own_kernels() -> None:
    chosen = kernels.kernels(torch.device("cuda"), torch.bfloat16)
    assert (chosen.attention, chosen.adapters) == ("varlen", "grouped"), chosen.why
