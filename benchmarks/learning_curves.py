"""Recorded learning curves: a table of configurations, each with its score after every epoch."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "curves"
_SECONDS, _EPOCH = "seconds", "epoch_"

Axes = Mapping[str, tuple[float, ...]]
"""Dotted path -> the values that were recorded: the grid is every combination."""
Cell = tuple[float, ...]
"""A configuration: one value of each axis."""


@dataclass(frozen=True)
class Curve:
    """One configuration, trained once."""

    cell: Cell
    scores: tuple[float, ...]
    """The task's objective after each epoch; NaN from the epoch on in which it diverged."""
    seconds: float
    """Of training, of its share where several were trained together."""

    @property
    def final(self) -> float:
        """Its best score over all epochs: what a trial that runs to its end is worth. NaN where it diverged."""
        return math.nan if math.isnan(self.scores[-1]) else max(self.scores)


@dataclass(frozen=True)
class Table:
    """Recorded curves."""

    name: str
    axes: Axes
    curves: Mapping[Cell, Curve]

    @property
    def epochs(self) -> int:
        """Of every curve."""
        return len(next(iter(self.curves.values())).scores)

    @property
    def best(self) -> float:
        """The best final score in the table."""
        return max(curve.final for curve in self.curves.values() if not math.isnan(curve.final))


def names() -> tuple[str, ...]:
    """The tables there are."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.csv"


def cells(axes: Axes) -> Iterator[Cell]:
    """Every combination."""
    return itertools.product(*axes.values())


def read(name: str) -> Table:
    """The table of that name. FileNotFoundError where none was recorded."""
    with path_of(name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    paths = [column for column in rows[0] if column != _SECONDS and not column.startswith(_EPOCH)]
    axes = {path: tuple(sorted({float(row[path]) for row in rows})) for path in paths}
    curves = [_curve(row, paths) for row in rows]
    return Table(name, axes, {curve.cell: curve for curve in curves})


def _curve(row: Mapping[str, str], paths: Sequence[str]) -> Curve:
    scores = tuple(float(value) for column, value in row.items() if column.startswith(_EPOCH))
    return Curve(tuple(float(row[path]) for path in paths), scores, float(row[_SECONDS]))


def append(name: str, axes: Axes, curves: Sequence[Curve]) -> None:
    """Add curves to a table, which is made where there is none."""
    path = path_of(name)
    fresh = not path.exists()
    path.parent.mkdir(exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            epochs = len(curves[0].scores)
            writer.writerow([*axes, *(f"{_EPOCH}{epoch}" for epoch in range(1, epochs + 1)), _SECONDS])
        for curve in curves:
            scores = [f"{score:.4f}" for score in curve.scores]
            writer.writerow([*(f"{value:g}" for value in curve.cell), *scores, f"{curve.seconds:.3g}"])


def missing(name: str, axes: Axes) -> list[Cell]:
    """What is not recorded yet of a grid."""
    known = set(read(name).curves) if path_of(name).exists() else set()
    return [cell for cell in cells(axes) if cell not in known]
