"""What an arm's sweep came to, and how two arms compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One configuration in one arm."""

    number: int
    objective: float | None
    """At its best evaluation; None where it failed."""
    loss: float | None
    """On the evaluation rows, at that evaluation."""
    started_s: float
    ended_s: float
    """Seconds since the epoch."""
    pruned: bool = False


@dataclass(frozen=True)
class Outcome:
    """One arm's sweep."""

    wall_s: float
    """The whole sweep, processes and imports included; where only a part of the trials ran, scaled up to all."""
    trials: tuple[Trial, ...]
    planned: int
    """Trials of the sweep."""

    @property
    def scaled(self) -> bool:
        """Whether only a part of the trials ran."""
        return len(self.trials) < self.planned

    @property
    def trials_s(self) -> float:
        """From the first trial's start to the last one's end, scaled likewise."""
        ran = max(trial.ended_s for trial in self.trials) - min(trial.started_s for trial in self.trials)
        return ran * self.planned / len(self.trials)

    @property
    def objectives(self) -> dict[int, float]:
        """By number, of the trials that ran to their ends."""
        return {t.number: t.objective for t in self.trials if t.objective is not None and not t.pruned}

    @property
    def losses(self) -> dict[int, float]:
        """The same of the loss."""
        return {t.number: t.loss for t in self.trials if t.loss is not None and not t.pruned}


@dataclass(frozen=True)
class Difference:
    """One arm's trials less another's, number by number."""

    trials: int
    """That ran to their ends in both."""
    mean: float
    error: float
    """Standard error of the mean; nan for a single trial."""
    largest: float
    """Of their sizes."""


def difference(mine: dict[int, float], theirs: dict[int, float]) -> Difference | None:
    """None where no trial ran to its end in both."""
    pairs = [mine[number] - theirs[number] for number in sorted(mine.keys() & theirs.keys())]
    if not pairs:
        return None
    error = statistics.stdev(pairs) / len(pairs) ** 0.5 if len(pairs) > 1 else float("nan")
    return Difference(len(pairs), statistics.mean(pairs), error, max(map(abs, pairs)))


def trials_of(plain: Sequence[dict[str, Any]]) -> tuple[Trial, ...]:
    """Trials as an arm's process wrote them."""
    return tuple(Trial(**trial) for trial in plain)
