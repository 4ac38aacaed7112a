"""What an arm reports, and the clock it is measured with."""

# N rows, C classes

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunery.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterator

UNTIMED_STEPS = 3
"""First steps left out of a rate: they pay for allocations and for threads that start."""


Evaluate = Literal["never", "end", "epochs"]
"""When a trial is evaluated."""


class Stopwatch:
    """Times optimiser steps; what happens between `pause` and its end counts for nothing."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._paused = 0.0
        self._laps: list[tuple[float, int]] = []

    def start(self) -> None:
        self._start, self._paused, self._laps = time.perf_counter(), 0.0, []

    def lap(self, examples: int) -> None:
        """A step has ended that trained on so many examples."""
        self._laps.append((time.perf_counter() - self._start - self._paused, examples))

    @contextmanager
    def pause(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    @property
    def seconds(self) -> float:
        """Seconds of training so far, without the pauses."""
        return self._laps[-1][0] if self._laps else 0.0

    @property
    def paused_s(self) -> float:
        return self._paused

    @property
    def steps(self) -> int:
        return len(self._laps)

    @property
    def examples(self) -> int:
        return sum(examples for _, examples in self._laps)

    @property
    def timed_examples(self) -> int:
        """Examples of all steps but the first few."""
        return sum(count for _, count in self._laps[self._untimed() :])

    @property
    def timed_seconds(self) -> float:
        """Seconds of those steps."""
        untimed = self._untimed()
        return self.seconds - (self._laps[untimed - 1][0] if untimed else 0.0)

    def _untimed(self) -> int:
        return max(0, min(UNTIMED_STEPS, len(self._laps) - 1))


@dataclass(frozen=True)
class SeedResult:
    """One trial's quality."""

    seed: int
    objective: float | None
    """At the best evaluation; None where none was asked for."""
    metrics: Mapping[str, float]
    """At that evaluation, by the task's names, and `loss` on the first split."""
    final: Mapping[str, float]
    """At the last evaluation."""
    trainable: int
    """Parameters trained."""


def loss(task: Task, logits_NC: NDArray[np.float32], labels_N: NDArray[np.generic]) -> float:
    """Mean over N rows of the cross entropy over C classes, or of the squared error: what the platform calls `loss`."""
    logits = logits_NC.astype(np.float64)
    if task.kind == "regression":
        return float(np.mean((logits[:, 0] - labels_N.astype(np.float64)) ** 2))
    highest = logits.max(axis=1)
    total = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest
    return float(np.mean(total - logits[np.arange(len(logits)), labels_N.astype(np.int64)]))


def judge(task: Task, seed: int, evaluations: Sequence[Mapping[str, float]], trainable: int) -> SeedResult:
    """What a trial's evaluations, in their order, say."""
    from tunery.tasks.metrics import objective

    if not evaluations:
        return SeedResult(seed, None, {}, {}, trainable)
    best = max(evaluations, key=lambda metrics: objective(task, metrics))
    return SeedResult(seed, objective(task, best), best, evaluations[-1], trainable)


@dataclass(frozen=True)
class ArmResult:
    """What one arm did in one repetition."""

    arm: str
    examples_per_s: float
    """Over all trials that trained at the same time."""
    train_s: float
    """Wall seconds of training, all seeds, without loading, tokenising and evaluating."""
    eval_s: float
    steps: int
    """Optimiser steps a trial."""
    peak_mib: float
    """Largest resident set of a process, in MiB."""
    seeds: tuple[SeedResult, ...] = field(default=())

    @property
    def objectives(self) -> list[float]:
        """Of the trials that were evaluated."""
        return [seed.objective for seed in self.seeds if seed.objective is not None]


def together(arm: str, parts: Sequence[ArmResult]) -> ArmResult:
    """The result of an arm whose processes ran at the same time."""
    return ArmResult(
        arm=arm,
        examples_per_s=sum(part.examples_per_s for part in parts),
        train_s=max(part.train_s for part in parts),
        eval_s=max(part.eval_s for part in parts),
        steps=max(part.steps for part in parts),
        peak_mib=sum(part.peak_mib for part in parts),
        seeds=tuple(seed for part in parts for seed in part.seeds),
    )


def same_size(results: Sequence[ArmResult]) -> None:
    """Refuse to compare trials that trained different numbers of parameters."""
    sizes = {result.arm: {seed.trainable for seed in result.seeds} for result in results}
    assert len(set().union(*sizes.values())) == 1, f"the arms trained different numbers of parameters: {sizes}"


def median_rate(results: Sequence[ArmResult]) -> float:
    return statistics.median(result.examples_per_s for result in results)


def plain(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    return [asdict(result) for result in results]
