"""Parallel coordinates: an axis for each thing in which trials differ, and their score as the last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from tunery.report import words
from tunery.report.documents.canvas import MOST_PANELS, grid, png
from tunery.report.documents.facts import Facts, Result, finite, is_number, sorted_values
from tunery.report.documents.fonts import Fonts
from tunery.runs import Value

_FEW = 6
"""Values of an axis that are all named."""
_APART = 0.07
"""Of an axis's length, between two values that are both named."""
_LOG = 8.0
"""Times the smallest value from which on numbers are laid out by their logarithm."""
_COLOURS = "viridis_r"
"""The best is darkest: the faint end of the map would not be seen on white."""


@dataclass(frozen=True)
class _Axis:
    """One thing in which trials differ."""

    name: str
    place: Callable[[Value], float]
    """From 0 to 1."""
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(facts: Facts, fonts: Fonts) -> bytes | None:
    """A panel a task; None where nothing differs."""
    shown = []
    for task, results in facts.tasks.items():
        rows = [row for result in results for row in _rows(facts, result)]
        paths = dict.fromkeys(path for settings, _ in rows for path in settings)
        axes = [axis for path in paths if (axis := _axis(facts, path, [settings.get(path) for settings, _ in rows]))]
        if axes:
            shown.append((task, results[0], axes, rows))
    if not shown:
        return None
    shown = shown[:MOST_PANELS]
    wide = max(len(axes) for _, _, axes, _ in shown)
    figure, panels = grid(len(shown), columns=1, size=(max(8.0, 2.0 * (wide + 1)), 4.0))
    for panel, (task, first, axes, rows) in zip(panels, shown, strict=True):
        up = first.study.direction == "maximise"
        scores = [score for _, score in rows]
        ends = Normalize(min(scores), max(scores))
        colours = colormaps[_COLOURS if up else _COLOURS.removesuffix("_r")]
        last = _axis(facts, first.study.objective, scores)
        rows.sort(key=lambda row: row[1], reverse=not up)  # the best is drawn last, above the others
        for settings, score in rows:
            heights = [axis.place(settings.get(axis.name)) for axis in axes] + ([last.place(score)] if last else [])
            panel.plot(range(len(heights)), heights, color=colours(float(ends(score))), linewidth=1.8, alpha=0.9)
        _axes(panel, [*axes, last] if last else axes, fonts)
        panel.set_title(fonts.label(task), pad=26)
        figure.colorbar(ScalarMappable(ends, colours), ax=panel, label=fonts.label(first.study.objective), pad=0.02)
    return png(figure)


def _rows(facts: Facts, result: Result) -> Iterator[tuple[dict[str, Value], float]]:
    """What each trial of the search was trained with, of what differs in the run, and its score."""
    cell = {path: result.study.cell[path] for path in facts.axes if path in result.study.cell}
    for trial in result.study.trials:
        if finite(trial) and trial.objective is not None and trial.rerun_of is None:
            yield {**cell, **trial.config}, trial.objective


def _axis(facts: Facts, name: str, values: Sequence[Value]) -> _Axis | None:
    """None where all values are the same."""
    distinct = sorted_values(list(dict.fromkeys(values)))
    if len(distinct) < 2:
        return None
    if all(map(is_number, distinct)):
        numbers = [float(value) for value in distinct if is_number(value)]
        scale = math.log if numbers[0] > 0 and numbers[-1] >= _LOG * numbers[0] else float
        low, high = scale(numbers[0]), scale(numbers[-1])
        span = high - low

        def place(value: Value) -> float:
            assert is_number(value)
            return (scale(value) - low) / span

        named = [numbers[0], numbers[-1]]
        for value in numbers if len(numbers) <= _FEW else ():
            if all(abs(place(value) - place(other)) > _APART for other in named):
                named.append(value)
        return _Axis(name, place, [(place(value), words.setting(_whole(value))) for value in named])
    order = {value: index / (len(distinct) - 1) for index, value in enumerate(distinct)}
    texts = [(at, "not drawn" if value is None else facts.said(name, value)) for value, at in order.items()]
    return _Axis(name, order.__getitem__, texts)


def _whole(value: float) -> float:
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def _axes(panel: Axes, axes: Sequence[_Axis], fonts: Fonts) -> None:
    for at, axis in enumerate(axes):
        panel.axvline(at, color="#555555", linewidth=1, zorder=1)
        for height, text in axis.ticks:
            panel.text(at + 0.02, height, fonts.label(text), va="center", fontsize=10, zorder=5,
                       bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1})  # fmt: skip
    panel.set_xticks(range(len(axes)), [fonts.label(axis.name) for axis in axes])
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.set_yticks([])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_xlim(-0.05, len(axes) - 0.75)
    panel.set_ylim(-0.06, 1.06)
