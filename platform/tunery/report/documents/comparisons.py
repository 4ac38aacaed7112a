"""A picture for each axis of the matrix: the score, the time and the memory along it, a row a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from tunery.report import words
from tunery.report.documents.canvas import MOST_PANELS, colour, grid, legend, png
from tunery.report.documents.facts import Facts, Result, is_number
from tunery.report.documents.fonts import Fonts
from tunery.runs import Value

Series = Mapping[str, Mapping[Value, Result]]
"""The rest of the cell, in words -> the axis's value -> the study."""
_NUMBERED = 10
"""Points or bars of a panel that have their numbers beside them: those of more would lie on each other."""
_WIDE = 14
"""Characters of a group's name from which on it is set aslant."""
_LOG = 4.0
"""Times the smallest value from which on an axis is logarithmic."""


@dataclass(frozen=True)
class _Measure:
    """What a panel shows of a study."""

    title: str
    unit: str
    of: Callable[[Result], float | None]
    error: Callable[[Result], float] = lambda _: 0.0
    cost: bool = True
    """Whether it is a cost: its axis begins at 0."""


def comparison(facts: Facts, path: str, fonts: Fonts) -> bytes:
    """The studies along one axis."""
    values = facts.axes[path]
    draw = _lines if all(map(is_number, values)) else _groups
    named = {value: facts.said(path, value) for value in values}
    others = [other for other in facts.axes if other != path]
    tasks = list(facts.tasks.items())[: MOST_PANELS // 3]
    figure, panels = grid(3 * len(tasks), columns=3)
    for row, (task, results) in enumerate(tasks):
        series: dict[str, dict[Value, Result]] = {}
        for result in results:
            cell = result.study.cell
            # Lines have a legend; below groups there is room for values alone.
            name = (
                facts.label(result, without=[path])
                if draw is _lines
                else "\n".join(facts.said(o, cell[o]) for o in others)
            )
            if result.score is not None:
                series.setdefault(name, {})[cell[path]] = result
        for panel, measure in zip(panels[3 * row : 3 * row + 3], _measures(results[0].study.objective), strict=True):
            draw(panel, named, series, measure, fonts)
            panel.set_title(fonts.label(f"{task}: {measure.title}"))
            panel.set_ylabel(fonts.label(measure.unit))
            panel.set_xlabel(fonts.label(path if draw is _lines else ", ".join(others)))
            if measure.cost:
                panel.set_ylim(bottom=0)
    legend(figure, panels[0])
    return png(figure)


def _measures(objective: str) -> tuple[_Measure, ...]:
    return (
        _Measure(
            "score",
            objective,
            lambda result: result.tested.mean if result.tested else result.score,
            lambda result: (result.tested.deviation or 0.0) if result.tested else 0.0,
            cost=False,
        ),
        _Measure("time of the best trial", "minutes", lambda result: result.best_seconds / 60),
        _Measure("peak memory of a pack", "GB", lambda result: result.peak_gb),
    )


def _lines(panel: Axes, values: Mapping[Value, str], series: Series, measure: _Measure, fonts: Fonts) -> None:
    """Along numbers."""
    for place, (name, group) in enumerate(series.items()):
        found = [(float(v), measure.of(result), measure.error(result)) for v, result in group.items() if is_number(v)]
        _points(panel, sorted(found), place, fonts.label(name), line="-", numbers=False)
    numbers = [float(value) for value in values if is_number(value)]
    if numbers[0] > 0 and numbers[-1] >= _LOG * numbers[0]:
        panel.set_xscale("log")
        panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(numbers, [f"{value:,}" if isinstance(value, int) else name for value, name in values.items()])


def _groups(panel: Axes, values: Mapping[Value, str], series: Series, measure: _Measure, fonts: Fonts) -> None:
    """Of names: a group for each rest of the cell. Bars show costs; scores are points, since they do not begin at 0."""
    width = 0.8 / len(values)
    numbers = len(values) * len(series) <= _NUMBERED
    for place, (value, name) in enumerate(values.items()):
        here = [
            (index + (place - (len(values) - 1) / 2) * width, measure.of(group[value]), measure.error(group[value]))
            for index, group in enumerate(series.values())
            if value in group
        ]
        if not measure.cost:
            _points(panel, here, place, fonts.label(name), line="none", numbers=numbers)
            continue
        known = [(x, y) for x, y, _ in here if y is not None]
        bars = panel.bar([x for x, _ in known], [y for _, y in known], width * 0.94, color=colour(place))
        bars.set_label(fonts.label(name))
        if numbers:
            panel.bar_label(bars, [f"{y:.3g}" for _, y in known], padding=2, fontsize=9)
    ticks = [fonts.label(name) for name in series]
    panel.set_xticks(range(len(series)), ticks)
    if max((len(part) for tick in ticks for part in tick.split("\n")), default=0) > _WIDE:
        for label in panel.get_xticklabels():
            label.set(rotation=20, horizontalalignment="right")
    panel.set_xlim(-0.6, len(series) - 0.4)
    panel.grid(visible=False, axis="x")
    panel.margins(y=0.15)


def _points(
    panel: Axes, points: Sequence[tuple[float, float | None, float]], place: int, name: str, *, line: str, numbers: bool
) -> None:
    """With error bars where there are deviations, and the numbers beside them."""
    known = [(x, y, error) for x, y, error in points if y is not None]
    if not known:
        return
    x, y, errors = (list(each) for each in zip(*known, strict=True))
    bars = errors if any(errors) else None
    panel.errorbar(x, y, yerr=bars, color=colour(place), marker="o", linestyle=line, capsize=4, label=name)
    for at, value, error in known if numbers else ():
        panel.annotate(
            words.number(value), (at, value + error), (0, 6), textcoords="offset points", ha="center", fontsize=9
        )
