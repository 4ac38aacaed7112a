from __future__ import annotations

import math
from typing import Any

import pytest

from tuners.config import TrainConfig
from tuners.engine.schedule import Schedule


def schedule(examples: int = 100, **fields: Any) -> Schedule:
    return Schedule(TrainConfig(**({"batch_size": 8, "epochs": 2, "learning_rate": 1.0} | fields)), examples)


def test_the_last_step_of_an_epoch_is_smaller() -> None:
    found = schedule(accumulation=3)
    assert (found.batch, found.steps_per_epoch, found.steps) == (24, 5, 10)
    assert found.batch_bounds(3) == (0, 72, 96)
    assert found.batch_bounds(4) == (0, 96, 100)
    assert found.batch_bounds(5) == (1, 0, 24)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0, 1 / 3, 2 / 3, 1, 1, 1]),
        ("linear", [0, 1 / 3, 2 / 3, 1, 1 - 1 / 23, 1 - 2 / 23]),
        ("cosine", [0, 1 / 3, 2 / 3, 1, *((1 + math.cos(math.pi * k / 23)) / 2 for k in (1, 2))]),
    ],
)
def test_the_rate_rises_and_then_takes_its_course(kind: Any, expected: list[float]) -> None:
    found = schedule(schedule=kind, warmup_ratio=0.1)
    assert found.steps == 26
    assert found.warmup == 3
    assert [found.learning_rate(step) for step in range(6)] == pytest.approx(expected)
    assert kind == "constant" or found.learning_rate(26) == pytest.approx(0)


@pytest.mark.parametrize(
    ("cadence", "expected"), [(1, [13, 26]), (2, [7, 13, 20, 26]), (13, list(range(1, 27))), (99, list(range(1, 27)))]
)
def test_evaluations_are_spread_over_each_epoch_and_end_it(cadence: int, expected: list[int]) -> None:
    found = schedule(evaluations_per_epoch=cadence)
    assert [step for step in range(27) if found.evaluation_at(step)] == expected
