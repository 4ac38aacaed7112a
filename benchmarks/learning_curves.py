"""Recorded learning curves: a table of configurations, each with its score after every epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "curves"
AXES: Mapping[str, tuple[float, ...]] = {
    "train.learning_rate": tuple(float(f"{2.5e-4 * 10 ** (step / 4.5):.2e}") for step in range(10)),
    "tuner.rank": (4, 32),
    "train.batch_size": (8, 32, 128),
}
"""The grid that is recorded: every combination."""

Cell = tuple[float, ...]
"""A configuration: one value of each axis."""


@dataclass(frozen=True)
class Curve:
    """One configuration, trained once."""

    cell: Cell
    scores: tuple[float, ...]
    """The task's objective after each epoch; NaN from the epoch on in which it diverged."""
    seconds: float
    """Of training, of its share in its pack."""

    @property
    def final(self) -> float:
        """Its best score over all epochs: what a trial that runs to its end is worth. NaN where it diverged."""
        return math.nan if math.isnan(self.scores[-1]) else max(self.scores)


@dataclass(frozen=True)
class Table:
    """The recorded curves of one task."""

    task: str
    curves: Mapping[Cell, Curve]

    @property
    def epochs(self) -> int:
        """Of every curve."""
        return len(next(iter(self.curves.values())).scores)

    @property
    def best(self) -> float:
        """The best final score in the table."""
        return max(curve.final for curve in self.curves.values() if not math.isnan(curve.final))


def path_of(task: str) -> Path:
    return FOLDER / f"{task}.csv"


def read(task: str) -> Table:
    """The table of a task. FileNotFoundError where none was recorded."""
    with path_of(task).open(newline="") as file:
        rows = list(csv.DictReader(file))
    curves = [_curve(row) for row in rows]
    return Table(task, {curve.cell: curve for curve in curves})


def _curve(row: Mapping[str, str]) -> Curve:
    scores = tuple(float(value) for name, value in row.items() if name.startswith("epoch_"))
    return Curve(tuple(float(row[axis]) for axis in AXES), scores, float(row["seconds"]))


def append(task: str, curves: Sequence[Curve]) -> None:
    """Add curves to the table of a task, which is made where there is none."""
    path = path_of(task)
    fresh = not path.exists()
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            epochs = len(curves[0].scores)
            writer.writerow([*AXES, *(f"epoch_{epoch}" for epoch in range(1, epochs + 1)), "seconds"])
        for curve in curves:
            scores = [f"{score:.4f}" for score in curve.scores]
            writer.writerow([*(f"{value:g}" for value in curve.cell), *scores, f"{curve.seconds:.1f}"])
