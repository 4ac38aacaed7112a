from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from tunery.cluster.placement import PROCESS_BYTES, Node, Placement, Room, place, workers_on
from tunery.cluster.placement import Resources as Reserved
from tunery.spec import Resources

GIB = 1 << 30
LAPTOP = Room((Node(8),), memory=32 * GIB)
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
        ({"room": Room((Node(1),), GIB)}, 1, 1),
        ({"room": Room((Node(64, 8),), GIB), "gpus_per_worker": 1}, 8, 8),
        ({"room": Room((Node(64, 8),), GIB), "gpus_per_worker": 1, "workers": 4}, 2, 8),
        ({"room": Room((Node(64),), GIB), "gpus_per_worker": 1}, 1, 64),
    ],
    ids=str,
)
def test_packs_fill_the_cores_as_long_as_memory_and_trials_last(asked: Any, packs: int, threads: int) -> None:
    found = placed(**asked)
    assert (found.packs, found.threads) == (packs, threads)


TWO = (Node(1), Node(1))


@pytest.mark.parametrize("nodes", [(Node(8),), TWO, (Node(3), Node(2)), (Node(1),) * 5], ids=str)
@pytest.mark.parametrize("bases", [1, 2, 3])
@pytest.mark.parametrize("packs", [1, 2, 7, "auto"])
def test_all_packs_of_a_base_find_a_node_at_once(nodes: tuple[Node, ...], bases: int, packs: Any) -> None:
    found: Placement = placed(Room(nodes, 32 * GIB), bases=bases, packs=packs, cpus_per_worker=3)
    assert found.packs <= found.at_once <= bases * found.packs
    assert workers_on(nodes, found.share) >= found.at_once * found.share.workers
    assert found.threads <= max(node.cpus for node in nodes)


DEVICES = Room((Node(8, 4),), 32 * GIB)


@pytest.mark.parametrize(
    ("asked", "packs", "at_once", "cpus", "threads"),
    [
        ({"bases": 4, "room": Room((Node(2),), 32 * GIB)}, 1, 2, 1, 1),
        ({"bases": 2, "packs": 1, "cpus_per_worker": 2, "room": Room((Node(2),), 32 * GIB)}, 1, 1, 2, 2),
        ({"bases": 2, "packs": 3, "room": Room((Node(2),), 32 * GIB)}, 3, 3, 0.6666, 1),
        ({"bases": 3, "workers": 2, "room": Room((Node(5),), 32 * GIB)}, 1, 2, 1, 1),
        ({"bases": 3, "packs": 2, "gpus_per_worker": 1, "room": DEVICES}, 2, 4, 1, 2),
        ({"bases": 2, "packs": 2, "gpus_per_worker": 1, "cpus_per_worker": 4, "room": DEVICES}, 2, 4, 2, 2),
        ({"bases": 6, "gpus_per_worker": 1, "room": DEVICES}, 1, 4, 1, 2),
    ],
    ids=str,
)
def test_where_all_bases_find_no_room_some_wait(
    asked: Any, packs: int, at_once: int, cpus: float, threads: int
) -> None:
    found = placed(**asked)
    assert (found.packs, found.at_once, found.threads) == (packs, at_once, threads)
    assert found.share.cpus_per_worker == pytest.approx(cpus)


@pytest.mark.parametrize(
    ("nodes", "wanted", "share"),
    [
        ((Node(8),), {"packs": 2}, 1),
        ((Node(2),), {"packs": 2}, 1),
        ((Node(2),), {"packs": 3}, 0.6666),
        (TWO, {"packs": 1, "cpus_per_worker": 2}, 1),
        (TWO, {"packs": 3}, 0.5),
        ((Node(3), Node(1)), {"packs": 2, "cpus_per_worker": 2}, 1.5),
        ((Node(0), Node(4, 1)), {"packs": 1, "cpus_per_worker": 2, "gpus_per_worker": 1}, 2),
        ((Node(0),), {"packs": 1, "cpus_per_worker": 2, "gpus_per_worker": 1}, 2),
        ((), {"packs": 1, "cpus_per_worker": 2}, 2),
        ((Node(8, 2),), {"packs": 4, "cpus_per_worker": 8, "gpus_per_worker": 1}, 4),
        ((Node(8, 3), Node(8, 3)), {"packs": 3, "cpus_per_worker": 16, "gpus_per_worker": 2}, 8),
    ],
    ids=str,
)
def test_a_worker_reserves_what_was_asked_or_what_lets_all_find_a_node(nodes: Any, wanted: Any, share: float) -> None:
    assert placed(Room(nodes, 32 * GIB), **wanted).share.cpus_per_worker == pytest.approx(share)


CPU = Reserved(workers=3, cpus_per_worker=0.75, gpus_per_worker=0)
GPU = Reserved(workers=4, cpus_per_worker=2, gpus_per_worker=1)


@pytest.mark.parametrize(
    ("wanted", "nodes", "workers"),
    [
        (CPU, [Node(8)], 10),
        (CPU, [Node(2.25)], 3),
        (CPU, [Node(2)], 2),
        (CPU, [Node(1), Node(1)], 2),
        (CPU, [Node(0)], 0),
        (GPU, [Node(64, 2), Node(64, 2)], 4),
        (GPU, [Node(64, 2), Node(64)], 2),
        (GPU, [Node(3, 8)], 1),
        (GPU, [], 0),
    ],
)
def test_workers_go_where_all_they_need_is(wanted: Reserved, nodes: list[Node], workers: int) -> None:
    assert workers_on(nodes, wanted) == workers


def test_few_trials_are_dealt_out_evenly() -> None:
    assert placed(packs=2, trials=6, seats=8).capacity == 3
    assert placed(packs=2, trials=7, seats=8).capacity == 4
    assert placed(packs=2, trials=100, seats=8).capacity == 8
    assert placed(packs=4, trials=2, seats=8).capacity == 1


def test_memory_is_shared_by_need() -> None:
    sizes = {"frozen": 2 * GIB - PROCESS_BYTES, "trained": 6 * GIB - PROCESS_BYTES}
    found = place(Resources(packs=2), LAPTOP, bases=sizes, trials=100)
    assert found.memory == {"frozen": 4 * GIB, "trained": 12 * GIB}
    auto = place(Resources(), Room((Node(64),), memory=64 * GIB), bases=sizes, trials=100)
    assert auto.packs == 4, "what they take together is half of what there is"


def test_bases_that_wait_share_no_memory() -> None:
    sizes = {f"frozen-{number}": 2 * GIB - PROCESS_BYTES for number in range(3)}
    sizes["trained"] = 6 * GIB - PROCESS_BYTES
    found = place(Resources(), Room((Node(2),), memory=16 * GIB), bases=sizes, trials=100)
    assert found.memory == dict.fromkeys(sizes, 4 * GIB) | {"trained": 12 * GIB}
    alone = place(Resources(packs=1, cpus_per_worker=2), Room((Node(2),), memory=16 * GIB), bases=sizes, trials=100)
    assert alone.memory == dict.fromkeys(sizes, 16 * GIB)


@pytest.mark.parametrize("packs", [1, 2, 3])
@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_whatever_runs_together_fits(packs: int, cores: int) -> None:
    sizes = {f"base-{number}": number * GIB for number in range(1, 4)}
    room = Room((Node(cores),), memory=16 * GIB)
    found = place(Resources(packs=packs, workers=2), room, bases=sizes, trials=100)
    each = [limit * 2 for limit in found.memory.values() for _ in range(packs)]
    assert max(map(sum, combinations(each, found.at_once))) <= room.memory


def test_memory_is_shared_evenly_where_a_need_is_not_known() -> None:
    found = place(Resources(packs=2), LAPTOP, bases={"known": GIB, "unknown": None}, trials=100)
    assert found.memory == {"known": 8 * GIB, "unknown": 8 * GIB}
