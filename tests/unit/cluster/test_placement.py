from __future__ import annotations

from typing import Any

import pytest

from tunery.cluster.placement import PROCESS_BYTES, Placement, Room, place
from tunery.spec import Resources

GIB = 1 << 30
LAPTOP = Room(cpus=8, gpus=0, memory=32 * GIB)
SMALL = GIB - PROCESS_BYTES // 2


def placed(
    room: Room = LAPTOP, bases: int = 1, trials: int = 100, pack_bytes: int | None = SMALL, **wanted: Any
) -> Any:
    sizes = {f"base-{number}": pack_bytes for number in range(bases)}
    return place(Resources(**wanted), room, bases=sizes, trials=trials)


@pytest.mark.parametrize(
    ("asked", "packs", "threads"),
    [
        ({}, 8, 1),
        ({"cpus_per_worker": 4}, 2, 4),
        ({"workers": 2}, 4, 1),
        ({"bases": 2}, 4, 1),
        ({"trials": 3}, 3, 2),
        ({"trials": 1}, 1, 8),
        ({"pack_bytes": 5 * GIB}, 2, 4),
        ({"pack_bytes": 40 * GIB}, 1, 8),
        ({"pack_bytes": None}, 1, 8),
        ({"packs": 2}, 2, 4),
        ({"packs": 2, "pack_bytes": 40 * GIB}, 2, 4),
        ({"room": Room(1, 0, GIB)}, 1, 1),
        ({"room": Room(64, 8, GIB), "gpus_per_worker": 1}, 8, 8),
        ({"room": Room(64, 8, GIB), "gpus_per_worker": 1, "workers": 4}, 2, 8),
        ({"room": Room(64, 0, GIB), "gpus_per_worker": 1}, 1, 64),
    ],
    ids=str,
)
def test_packs_fill_the_cores_as_long_as_memory_and_trials_last(asked: Any, packs: int, threads: int) -> None:
    found = placed(**asked)
    assert (found.packs, found.threads) == (packs, threads)


@pytest.mark.parametrize("bases", [1, 2, 3])
@pytest.mark.parametrize("packs", [1, 2, 7, "auto"])
def test_what_is_reserved_leaves_room_for_the_seats(bases: int, packs: Any) -> None:
    found: Placement = placed(bases=bases, packs=packs, cpus_per_worker=3)
    assert bases * found.packs * found.share.workers * found.share.cpus_per_worker < LAPTOP.cpus


def test_few_trials_are_dealt_out_evenly() -> None:
    assert placed(packs=2, trials=6, seats=8).capacity == 3
    assert placed(packs=2, trials=7, seats=8).capacity == 4
    assert placed(packs=2, trials=100, seats=8).capacity == 8
    assert placed(packs=4, trials=2, seats=8).capacity == 1


def test_memory_is_shared_by_need() -> None:
    sizes = {"frozen": 2 * GIB - PROCESS_BYTES, "trained": 6 * GIB - PROCESS_BYTES}
    found = place(Resources(packs=2), LAPTOP, bases=sizes, trials=100)
    assert found.memory == {"frozen": 4 * GIB, "trained": 12 * GIB}
    auto = place(Resources(), Room(cpus=64, gpus=0, memory=64 * GIB), bases=sizes, trials=100)
    assert auto.packs == 4, "what they take together is half of what there is"


def test_memory_is_shared_evenly_where_a_need_is_not_known() -> None:
    found = place(Resources(packs=2), LAPTOP, bases={"known": GIB, "unknown": None}, trials=100)
    assert found.memory == {"known": 8 * GIB, "unknown": 8 * GIB}
