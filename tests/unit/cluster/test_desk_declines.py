"""A seat for which a pack has no room."""

from __future__ import annotations

from tests.unit.cluster.at_the_desk import desk_with, order, run
from tunery.cluster.messages import (
    Declined,
    Ended,
    Orders,
    SeatName,
)


def test_a_declined_seat_is_the_next_one_of_another_pack() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, 2, 3, capacity=3)
        other = await desk.open_pack("q", base="b", capacity=2)
        declined = [Declined(SeatName("cola", number), "no room") for number in (1, 2)]
        assert await desk.visit("p", incarnation, declined) == Orders(), "p has a place, and no room"
        assert [o.name.number for o in (await desk.visit("q", other, [])).take] == [1, 2]

    run(test())


def test_a_pack_that_declined_a_seat_is_asked_again_when_one_of_its_own_has_left() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, capacity=3)
        assert await desk.visit("p", incarnation, [Declined(SeatName("cola", 1), "no room")]) == Orders()
        await desk.join(order(2))
        assert await desk.visit("p", incarnation, []) == Orders()
        await desk.leave(SeatName("cola", 0), "pruned")
        orders = await desk.visit("p", incarnation, [])
        assert orders == Orders(take=(order(1), order(2)), drop=(SeatName("cola", 0),))

    run(test())


def test_a_pack_that_declined_a_seat_while_one_of_its_own_left_is_asked_again_at_once() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, capacity=2)
        await desk.leave(SeatName("cola", 0), "pruned")
        orders = await desk.visit("p", incarnation, [Declined(SeatName("cola", 1), "no room")])
        assert orders == Orders(take=(order(1),), drop=(SeatName("cola", 0),))

    run(test())


def test_a_seat_that_an_empty_pack_declines_has_failed() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        await desk.visit("p", incarnation, [Declined(SeatName("cola", 0), "needs 9 GiB, the pack has 8")])
        assert await desk.next_report(SeatName("cola", 0), 0) == Ended("failed", "needs 9 GiB, the pack has 8")

    run(test())
