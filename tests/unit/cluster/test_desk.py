"""The desk on a plain event loop: what seats, packs and the driver see of each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.cluster.at_the_desk import desk_with, order, report, run
from tunery.cluster.desk import Desk
from tunery.cluster.messages import (
    Ended,
    Events,
    Failed,
    Joined,
    Left,
    Orders,
    Report,
    Reported,
    Seated,
    SeatName,
)


def test_a_pack_takes_as_many_seats_as_it_has_places_in_the_order_they_came() -> None:
    async def test() -> None:
        _, _, orders = await desk_with(0, 1, 2)
        assert [o.name.number for o in orders.take] == [0, 1]

    run(test())


def test_a_seat_that_leaves_makes_room_for_one_that_waits() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, 2)
        await desk.leave(SeatName("cola", 0), "pruned")
        orders = await desk.visit("p", incarnation, [])
        assert orders == Orders(take=(order(2),), drop=(SeatName("cola", 0),))

    run(test())


def test_a_pack_of_another_base_takes_nothing() -> None:
    async def test() -> None:
        desk, _, _ = await desk_with()
        await desk.join(order(0, base="other"))
        incarnation = await desk.open_pack("q", base="b", capacity=2)
        assert await desk.visit("q", incarnation, []) == Orders()

    run(test())


def test_a_report_reaches_the_seat_that_awaits_it() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        waiting = asyncio.create_task(desk.next_report(SeatName("cola", 0), 0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await desk.visit("p", incarnation, [Reported(SeatName("cola", 0), report(0))])
        assert await waiting == report(0)

    run(test())


def test_reports_replayed_from_a_checkpoint_count_once() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        name = SeatName("cola", 0)
        await desk.visit("p", incarnation, [Reported(name, report(0))])
        incarnation = await desk.open_pack("p", base="b", capacity=2)
        assert (await desk.visit("p", incarnation, [])).take == (order(0),)
        await desk.visit("p", incarnation, [Reported(name, report(0)), Reported(name, report(1, final=True))])
        assert await desk.next_report(name, 1) == report(1, final=True)
        events = await desk.events(0, wait_s=0)
        assert sum(isinstance(event, Reported) for _, event in events.events) == 2

    run(test())


def test_a_pack_given_up_for_dead_is_sent_home_and_not_heard() -> None:
    async def test() -> None:
        desk, old, _ = await desk_with(0)
        await desk.open_pack("p", base="b", capacity=2)
        assert (await desk.visit("p", old, [Reported(SeatName("cola", 0), report(0))])).close
        events = await desk.events(0, wait_s=0)
        assert not any(isinstance(event, Reported) for _, event in events.events)

    run(test())


def test_the_seats_of_a_lost_pack_go_to_another() -> None:
    async def test() -> None:
        desk, _, _ = await desk_with(0)
        other = await desk.open_pack("q", base="b", capacity=2)
        assert (await desk.visit("q", other, [])).take == ()
        await desk.lose_pack("p")
        assert (await desk.visit("q", other, [])).take == (order(0),)

    run(test())


def test_a_failed_seat_is_told_why_and_frees_its_place() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, capacity=1)
        name = SeatName("cola", 0)
        orders = await desk.visit("p", incarnation, [Failed(name, "loss is nan", 5)])
        assert await desk.next_report(name, 0) == Ended("failed", "loss is nan")
        assert orders.take == (order(1),)
        await desk.leave(name, "failed")
        left = [event for _, event in (await desk.events(0, wait_s=0)).events if isinstance(event, Left)]
        assert left == [Left(name, "failed", "loss is nan", 1000)]

    run(test())


def test_a_seat_whose_process_died_joins_again_without_a_second_seat() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        await desk.visit("p", incarnation, [Reported(SeatName("cola", 0), report(0))])
        await desk.join(order(0))
        assert await desk.next_report(SeatName("cola", 0), 0) == report(0)
        joined = [event for _, event in (await desk.events(0, wait_s=0)).events if isinstance(event, Joined)]
        assert len(joined) == 1

    run(test())


def test_a_trial_that_has_ended_does_not_come_back() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        await desk.leave(SeatName("cola", 0), "pruned")
        await desk.join(order(0))
        assert (await desk.visit("p", incarnation, [])).take == ()
        assert await desk.next_report(SeatName("cola", 0), 0) == Ended("pruned")

    run(test())


def test_no_seat_waits_for_a_base_that_was_given_up() -> None:
    async def test() -> None:
        desk, _, _ = await desk_with(0)
        await desk.give_up_base("b", "no such model")
        await desk.join(order(1))
        for number in (0, 1):
            assert await desk.next_report(SeatName("cola", number), 0) == Ended("failed", "no such model")

    run(test())


def test_closing_sends_the_packs_home() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        waiting = asyncio.create_task(desk.visit("p", incarnation, [], wait_s=10))
        await asyncio.sleep(0)
        assert await desk.close() == {"p"}, "who has seats to write down"
        assert (await waiting).close
        assert (await desk.visit("late", await desk.open_pack("late", base="b", capacity=1), [])).close

    run(test())


def test_an_abandoned_study_leaves_no_seat_behind() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        await desk.join(order(0, study="rte"))
        await desk.abandon("cola")
        orders = await desk.visit("p", incarnation, [])
        assert orders.drop == (SeatName("cola", 0),)
        assert [o.name.study for o in orders.take] == ["rte"]

    run(test())


@pytest.mark.parametrize("packs", [1, 3])
def test_every_seat_reaches_its_end_whatever_the_packs_do(packs: int) -> None:
    async def pack(desk: Desk, name: str) -> None:
        incarnation = await desk.open_pack(name, base="b", capacity=4)
        seats: dict[SeatName, int] = {}
        messages: list[Any] = []
        visits = 0
        while not (orders := await desk.visit(name, incarnation, messages, wait_s=0.2)).close:
            visits += 1
            if visits % 7 == 0:  # it dies, and comes back knowing nothing
                incarnation, seats, messages = await desk.open_pack(name, base="b", capacity=4), {}, []
                continue
            for dropped in orders.drop:
                seats.pop(dropped, None)
            seats |= {taken.name: 0 for taken in orders.take}
            messages = [Seated(taken.name, 0, 0) for taken in orders.take]
            for seat in list(seats):
                messages.append(Reported(seat, report(seats[seat], final=seats[seat] == 1)))
                seats[seat] += 1
                if seats[seat] == 2:
                    del seats[seat]

    async def seat(desk: Desk, number: int) -> None:
        name = SeatName("cola", number)
        await desk.join(order(number))
        heard = 0
        while True:
            answer = await desk.next_report(name, heard)
            assert isinstance(answer, Report)
            assert answer.index == heard
            heard += 1
            if answer.final:
                await desk.leave(name, "finished")
                return

    async def test() -> None:
        desk = Desk()
        hosts = [asyncio.create_task(pack(desk, f"p{number}")) for number in range(packs)]
        await asyncio.gather(*(seat(desk, number) for number in range(30)))
        await desk.close()
        await asyncio.gather(*hosts)
        ends = [event for _, event in (await desk.events(0, wait_s=0)).events if isinstance(event, Left)]
        assert len(ends) == 30

    run(test())


def test_the_studies_of_a_base_have_no_more_trials_at_once_than_it_has_seats() -> None:
    async def test() -> None:
        desk = Desk(clock=lambda: 1.0)
        begun = [await desk.admit(study, base="b", limit=2) for study in ("cola", "sst2", "cola")]
        assert begun == [True, True, False]
        assert await desk.admit("rte", base="another", limit=2)
        await desk.leave(SeatName("cola", 0), "failed")  # though it had not come to join
        assert await desk.admit("sst2", base="b", limit=2)
        assert not await desk.admit("cola", base="b", limit=2)
        await desk.abandon("sst2")
        assert [await desk.admit("cola", base="b", limit=2) for _ in range(3)] == [True, True, False]

    run(test())


def test_a_seat_that_has_reported_its_last_has_no_place_any_more() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0, 1, capacity=1)
        orders = await desk.visit("p", incarnation, [Reported(SeatName("cola", 0), report(0, final=True))])
        assert orders == Orders(take=(order(1),)), "its pack has dropped it, and the study may hear of it later"
        incarnation = await desk.open_pack("p", base="b", capacity=2)
        assert (await desk.visit("p", incarnation, [])).take == (order(1),), "it is not trained again"

    run(test())


def test_a_trial_that_made_its_last_report_has_finished_whatever_becomes_of_its_base() -> None:
    async def test() -> None:
        desk, incarnation, _ = await desk_with(0)
        name = SeatName("cola", 0)
        await desk.visit("p", incarnation, [Reported(name, report(0, final=True))])
        await desk.give_up_base("b", "its pack died too often")
        assert await desk.next_report(name, 0) == report(0, final=True)
        await desk.leave(name, "finished")
        left = [event for _, event in (await desk.events(0, wait_s=0)).events if isinstance(event, Left)]
        assert left == [Left(name, "finished", "", 1000)]

    run(test())


def test_the_desk_forgets_the_events_that_the_driver_has() -> None:
    async def test() -> None:
        desk, _, _ = await desk_with(0, 1)
        first = await desk.events(0, wait_s=0)
        assert (first.upto, len(first.events)) == (2, 2)
        await desk.leave(SeatName("cola", 0), "pruned")
        second = await desk.events(first.upto, wait_s=0)
        assert [type(event) for _, event in second.events] == [Left]
        assert second.upto == 3
        assert await desk.events(3, wait_s=0) == Events(3, ())

    run(test())


def test_a_waiting_seat_goes_to_the_pack_with_the_fewest_if_that_comes_by() -> None:
    async def test() -> None:
        desk, busy, first = await desk_with(0, capacity=2)
        assert first == Orders(take=(order(0),))
        empty = await desk.open_pack("q", base="b", capacity=2)
        await desk.join(order(1))
        assert await desk.visit("p", busy, ()) == Orders(), "it is for the other, which trains nothing"
        assert await desk.visit("q", empty, ()) == Orders(take=(order(1),))
        await desk.join(order(2))
        assert await desk.visit("p", busy, ()) == Orders(take=(order(2),)), "both have one"

    run(test())


def test_a_waiting_seat_does_not_wait_for_a_pack_that_does_not_come() -> None:
    async def test() -> None:
        desk, busy, _ = await desk_with(0, capacity=2)
        await desk.open_pack("q", base="b", capacity=2)
        await desk.join(order(1))
        assert await desk.visit("p", busy, ()) == Orders()
        assert await desk.visit("p", busy, ()) == Orders(take=(order(1),))

    run(test())


def test_the_packs_of_a_base_go_home_when_its_studies_have_ended_and_others_stay() -> None:
    async def test() -> None:
        desk = Desk()
        numbers = {name: await desk.open_pack(name, base=base, capacity=1) for name, base in (("p", "b"), ("q", "c"))}
        awaiting = asyncio.create_task(desk.visit("p", numbers["p"], [], wait_s=60))
        await asyncio.sleep(0)
        assert await desk.wants("b")
        await desk.release("b")
        assert not await desk.wants("b"), "a pack of it that has its place only now loads nothing"
        assert await desk.wants("c")
        assert (await asyncio.wait_for(awaiting, 10)).close
        assert not (await desk.visit("q", numbers["q"], [])).close
        late = await desk.open_pack("r", base="b", capacity=1)  # it had waited for a device until now
        assert (await desk.visit("r", late, [])).close

    run(test())
