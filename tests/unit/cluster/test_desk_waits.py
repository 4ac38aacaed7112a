"""Who waits at the desk, and what wakes whom."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.cluster.at_the_desk import desk_with, order, report, run
from tunery.cluster import desk as desk_module
from tunery.cluster.messages import (
    Orders,
    Progressed,
    Reported,
    SeatName,
)


def test_a_pack_that_waits_for_work_is_woken_by_a_join() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with()
        waiting = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        await desk.join(order(5))
        assert [o.name.number for o in (await waiting).take] == [5]

    run(test())


def test_what_a_seat_awaits_is_not_woken_by_what_concerns_others() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1)
        waiting = asyncio.create_task(desk.next_report(SeatName("cola", 1), 0))
        awaited = None
        for index in range(3):
            await asyncio.sleep(0)
            now = waiting.get_coro().cr_await  # type: ignore[union-attr]
            assert awaited in (None, now), "it was woken, and waits anew"
            awaited = now
            await desk.visit("p", incarnation, [Reported(SeatName("cola", 0), report(index))])
            await desk.visit("p", incarnation, [Progressed(SeatName("cola", 1), 1, 2, 0.5, 1.0, 20.0)])
        waiting.cancel()

    run(test())


def test_a_pack_that_waits_is_woken_by_a_seat_that_leaves_it() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        waiting = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        await desk.leave(SeatName("cola", 0), "pruned")
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiting.done()
        assert (await waiting).drop == (SeatName("cola", 0),)

    run(test())


def test_a_pack_that_comes_again_has_the_answer_there_and_its_older_visit_ends_empty() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        older = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        await desk.leave(SeatName("cola", 0), "pruned")
        assert await desk.visit("p", incarnation, []) == Orders(drop=(SeatName("cola", 0),))
        assert await asyncio.wait_for(older, 5) == Orders()

    run(test())


def test_a_pack_that_came_again_and_went_is_not_taken_for_one_that_waits() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(capacity=1)
        older = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        await desk.visit("p", incarnation, [])
        await asyncio.wait_for(older, 5)
        other = await desk.open_pack("q", base="b", capacity=1)
        waiting = asyncio.create_task(desk.visit("q", other, [], wait_s=10))
        await asyncio.sleep(0)
        await desk.join(order(0))
        assert (await asyncio.wait_for(waiting, 5)).take == (order(0),)

    run(test())


def test_of_packs_that_wait_the_one_with_the_fewest_seats_has_the_next() -> None:
    async def test() -> None:
        desk, busy, first = await desk_with(0, capacity=2)
        assert first.take
        empty = await desk.open_pack("q", base="b", capacity=2)
        waiting = [asyncio.create_task(desk.visit(*pack, [], wait_s=10)) for pack in (("p", busy), ("q", empty))]
        await asyncio.sleep(0)
        await desk.join(order(1))
        assert (await asyncio.wait_for(waiting[1], 5)).take == (order(1),)
        assert not waiting[0].done()
        waiting[0].cancel()

    run(test())


def test_a_seat_is_left_to_a_pack_with_fewer_for_a_moment_only() -> None:
    async def test() -> None:
        desk, busy, _ = await desk_with(0, capacity=2)
        await desk.open_pack("q", base="b", capacity=2)  # in a long step
        await desk.join(order(1))
        assert (await asyncio.wait_for(desk.visit("p", busy, [], wait_s=60), 30)).take == (order(1),)

    run(test())


def test_who_has_left_a_seat_to_another_waits_as_long_as_ever_when_that_has_taken_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(desk_module, "WAIVED_S", 0.0)

    async def test() -> None:
        desk, busy, _ = await desk_with(0, capacity=2)
        empty = await desk.open_pack("q", base="b", capacity=2)
        await desk.join(order(1))
        assert await desk.visit("p", busy, []) == Orders(), "it is left to the other"
        assert (await desk.visit("q", empty, [])).take == (order(1),)
        waiting = asyncio.create_task(desk.visit("p", busy, [], wait_s=10))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()

    run(test())


def test_two_packs_that_wait_share_the_seats_that_come() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with()
        other = await desk.open_pack("q", base="b", capacity=2)
        visits = [
            asyncio.create_task(desk.visit(*where, [], wait_s=10)) for where in (("p", incarnation), ("q", other))
        ]
        await asyncio.sleep(0)
        for number in range(2):
            await desk.join(order(number))
            await asyncio.sleep(0)
        assert [[o.name.number for o in (await visit).take] for visit in visits] == [[0], [1]]

    run(test())


def test_each_pack_that_waits_is_woken_for_a_seat_of_a_lost_one() -> None:
    async def test() -> None:
        desk, _, _ = await desk_with(0, 1)
        others = [(name, await desk.open_pack(name, base="b", capacity=1)) for name in ("q", "r")]
        visits = [asyncio.create_task(desk.visit(*pack, [], wait_s=10)) for pack in others]
        await asyncio.sleep(0)
        await desk.lose_pack("p")
        for _ in range(3):
            await asyncio.sleep(0)
        assert all(visit.done() for visit in visits)
        assert [visit.result().take for visit in visits] == [(order(0),), (order(1),)]

    run(test())


def test_a_worker_given_up_while_it_waits_takes_no_seat() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with()
        waiting = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        new = await desk.open_pack("p", base="b", capacity=2)
        await desk.join(order(0))
        assert await waiting == Orders(close=True)
        assert (await desk.visit("p", new, [])).take == (order(0),)

    run(test())
