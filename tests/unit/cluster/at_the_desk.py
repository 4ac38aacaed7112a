"""Orders, reports and a desk with one pack, for the tests of the desk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tunery import tasks
from tunery.cluster.desk import Desk
from tunery.cluster.messages import (
    Orders,
    Report,
    SeatName,
    SeatOrder,
    StudyData,
)

DATA = StudyData(tasks.get("cola"), Path("t"), {}, Path("k"), "f", 1, 1, 1, ())


def order(number: int, *, base: str = "b", study: str = "cola") -> SeatOrder:
    return SeatOrder(SeatName(study, number), base, "{}", {"train.epochs": 1}, DATA)


def report(index: int, *, final: bool = False) -> Report:
    return Report(index, index + 1, 2, index + 1.0, 2, 0.5, best=True, final=final, metrics={}, at_ms=index)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def desk_with(*numbers: int, capacity: int = 2) -> tuple[Desk, int, Orders]:
    desk = Desk(clock=lambda: 1.0)
    for number in numbers:
        await desk.join(order(number))
    incarnation = await desk.open_pack("p", base="b", capacity=capacity)
    return desk, incarnation, await desk.visit("p", incarnation, [])
