"""The simulation of the desk, small: what it counts is the same on every machine."""

from __future__ import annotations

import asyncio

from benchmarks.desk_simulation import Simulation, Size, check, run
from benchmarks.places import Places, Refills


def test_every_trial_ends_once_and_the_desk_does_no_more_than_was_asked() -> None:
    simulation = Simulation(Size(packs=4, seats=4, studies=2, trials=200, evaluations=3, steps=5))
    run(simulation.run())
    check(simulation)
    reports = sum(simulation.reported.values())
    assert reports > 200
    woken = simulation.meter.stretches["next_report"]
    # A call, and one wake-up by the report it awaits; none by what concerns others.
    assert woken <= 2 * reports
    # A visit that waits is entered twice.
    assert simulation.meter.stretches["visit"] <= 2 * simulation.visits
    assert simulation.meter.stretches["leave"] == 200


def test_with_a_trial_ahead_a_place_is_taken_again_before_the_next_step() -> None:
    def refills(ahead: int) -> Refills:
        simulation = Simulation(
            Size(packs=4, seats=4, studies=2, trials=200, steps=50, step_s=0.05, begin_s=0.3, ahead=ahead)
        )
        run(simulation.run())
        return Refills.together(simulation.refills)

    assert refills(1).within(0) > 0.75 > refills(0).within(0)


def test_a_second_of_the_simulation_takes_no_time() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    assert 3600 <= run(wait()) < 3601


def test_a_place_counts_from_the_seat_that_leaves_to_the_one_that_comes() -> None:
    now = 0.0
    places = Places(2, lambda: now)
    places.taken()
    places.taken()
    places.trained(2)  # before anyone has left
    places.left()
    now = 0.5
    places.trained(1)
    now = 0.7
    places.taken()
    places.trained(2)  # after the last that came
    result = places.result()
    assert result == Refills(places=2, seats=1, seconds=(0.7,), steps=(1,))
    assert (result.filled, result.within(0), result.within(1)) == (0.5, 0.0, 1.0)
