"""What is said of a pack that was given up for want of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.train.v2.api.exceptions import WorkerGroupError

from tests.unit.tuners.test_needs import NEED
from tunery.cluster import packs
from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.placement import Node
from tunery.cluster.retry import Cause
from tunery.cluster.shortage import explained, note
from tunery.spec import ModelSpec

MIB = 1 << 20


def order(run: Path) -> PackOrder:
    desk: Any = None
    return PackOrder(
        pack="pack-0", base_key="b", model=ModelSpec(id="m"), quantisation="none", dequantised_once=False,
        trained=False, beside=False, kept_bytes=0, language=False, capacity=4, gradient_checkpointing=False, threads=1,
        memory=2000 * MIB, packs=1, run=run, store=run, desk=desk, our_ray=True,
    )  # fmt: skip


@pytest.mark.parametrize("cause", [Cause.DEVICE_MEMORY, Cause.HOST_MEMORY])
def test_a_pack_that_ran_out_of_memory_is_told_with_what_takes_less(tmp_path: Path, cause: Cause) -> None:
    parts: dict[str, Any] = {name: getattr(NEED, name) * MIB for name in ("process", "base", "seat", "quantised")}
    note(
        order(tmp_path), NEED.__class__(**vars(NEED) | parts | {"token": 2.0 * MIB, "recomputed": 0.5 * MIB}), 900 * MIB
    )
    said = explained(order(tmp_path), cause, "the pack failed 4 times")
    assert said.startswith("the pack failed 4 times; it was foreseen to take at least 828 MiB of 900 MiB; by estimate ")
    assert "tuner.method: qlora (488 MiB" in said
    assert "seats: 3" not in said, "778 MiB are too near to what was not enough"


def test_of_other_causes_and_unknown_needs_the_reason_stands_alone(tmp_path: Path) -> None:
    assert explained(order(tmp_path), Cause.HOST_MEMORY, "why") == "why"
    note(order(tmp_path), NEED, 900)
    assert explained(order(tmp_path), Cause.WORKER_DIED, "why") == "why"


def test_a_pack_whose_allocator_refuses_starts_smaller_and_is_given_up_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the training itself, which fails as torch does on a full machine."""
    tried: list[tuple[int, int]] = []

    def train(order: PackOrder, *_: object) -> None:
        tried.append((order.capacity, order.halvings))
        note(order, NEED, 900)
        refused = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
        raise WorkerGroupError("a worker failed", {0: refused})

    class Desk:
        def lose_pack(self, pack: str) -> None:
            assert pack == "pack-0"

    monkeypatch.setattr(packs, "_train", train)
    monkeypatch.setattr(packs, "nodes", lambda: (Node(4),))
    desk: Any = Desk()
    why = packs.host(replace(order(tmp_path), desk=desk), Resources(1, 1, 0), tmp_path)
    assert tried == [(4, 0), (2, 1), (1, 2), (1, 3)]
    assert "the pack failed 4 times; the last time, the host ran out of memory: RuntimeError: " in why
    assert "by estimate this would fit: tuner.method: qlora (0 MiB" in why
