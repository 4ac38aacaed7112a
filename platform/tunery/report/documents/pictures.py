"""The pictures of a run, as PNG. What has nothing to show is left out, and the reason is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tunery.report.documents import importance
from tunery.report.documents.canvas import FAINT, MOST_PANELS, STYLE, colour, grid, legend, png
from tunery.report.documents.comparisons import comparison
from tunery.report.documents.curves import Point
from tunery.report.documents.facts import DATA, METHOD, MODEL, Facts, Result
from tunery.report.documents.fonts import Fonts, fonts_for
from tunery.report.documents.importance import Weights
from tunery.report.documents.parallel import parallel_coordinates
from tunery.runs import RunState

_LOG = 3.0
"""Times as long as the shortest study from which on the time is logarithmic."""
IMPORTANCE = "importance"
_COMPARISONS: Mapping[str, str] = {
    DATA: "data_scale_comparison",
    METHOD: "method_comparison",
    MODEL: "model_comparison",
}


@dataclass(frozen=True)
class Pictures:
    """What was drawn."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name, with `.png` -> content."""
    captions: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Name of a picture, or what of it -> why it is not there."""
    warnings: tuple[str, ...] = ()


class _NothingToShow(Exception):  # noqa: N818  (it is told, and nothing has failed)
    """The message says why."""


def draw(facts: Facts) -> Pictures:
    """All pictures that the run has something for."""
    fonts = fonts_for(_characters(facts.state))
    files: dict[str, bytes] = {}
    captions: dict[str, str] = {}
    left_out: dict[str, str] = {}
    # An explicit style: whatever a matplotlibrc of this machine says, reports look alike.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        mpl.rcParams["font.family"] = list(fonts.families)
        weighed = importance.weigh(facts)
        for name, caption, make in _pictures(facts, fonts, weighed):
            try:
                files[f"{name}.png"] = make()
                captions[f"{name}.png"] = caption
            except _NothingToShow as reason:
                left_out[f"{name}.png"] = str(reason)
    if f"{IMPORTANCE}.png" in files:
        left_out |= {f"{IMPORTANCE}.png, {study}": why for study, why in weighed.lacking.items()}
    if len(facts.results) > MOST_PANELS:
        left_out["studies"] = f"pictures with a panel a study show the first {MOST_PANELS} of {len(facts.results)}"
    return Pictures(files, captions, left_out, (fonts.problem,) if fonts.problem else ())


def _pictures(facts: Facts, fonts: Fonts, weighed: Weights) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    for path in dict.fromkeys((DATA, METHOD, *facts.axes)):
        slug = re.sub(r"\W+", "_", path.rpartition(".")[2])
        yield (
            _COMPARISONS.get(path, f"{slug}_comparison"),
            f"Studies along {path}; error bars are deviations over seeds, where there are some.",
            partial(_compared, facts, path, fonts),
        )
    yield (
        "loss_curves",
        "The loss on the evaluation data (lines) and in training (dashes), the best trial of each study in colour.",
        partial(_loss_curves, facts, fonts),
    )
    yield (
        "best_so_far",
        "The best score so far against the time that a study's trials were under way, added up.",
        partial(_best_so_far, facts, fonts),
    )
    yield (
        IMPORTANCE,
        "The share of a study's differences that each hyperparameter explains (fANOVA): "
        "bars are means over the studies, points are studies.",
        partial(_importance, weighed, fonts),
    )
    yield (
        "parallel_coordinates",
        "A line a trial: what it was trained with, and its score.",
        partial(_parallel, facts, fonts),
    )


def _compared(facts: Facts, path: str, fonts: Fonts) -> bytes:
    if path not in facts.axes:
        raise _NothingToShow(f"all studies have the same {path}")
    return comparison(facts, path, fonts)


def _parallel(facts: Facts, fonts: Fonts) -> bytes:
    drawn = parallel_coordinates(facts, fonts)
    if drawn is None:
        raise _NothingToShow("no two trials differ in anything that was drawn or is in the matrix")
    return drawn


# -- curves ----------------------------------------------------------------------------------------------------


def _loss_curves(facts: Facts, fonts: Fonts) -> bytes:
    shown = [result for result in facts.results if any(_curves_of(facts, result))][:MOST_PANELS]
    if not shown:
        raise _NothingToShow("the run's folder has no record of its evaluations")
    figure, panels = grid(len(shown), columns=3)
    for panel, result in zip(panels, shown, strict=True):
        best = result.best.number if result.best else None
        for trial in sorted(result.study.trials, key=lambda trial: trial.number == best):
            points = facts.curves.of(result.study.name, trial.number)
            chosen = trial.number == best
            for place, (metric, line) in enumerate((("loss", "-"), ("train_loss", "--"))):
                told = f"best trial, {'evaluation' if metric == 'loss' else 'training'}" if chosen else ""
                _curve(panel, points, metric, line, colour(place) if chosen else FAINT, told)
        panel.plot([], [], color=FAINT, label="other trials")
        panel.set_title(fonts.label(_title(facts, result)), fontsize=11)
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.set_ylabel("loss")
    legend(figure, panels[0])
    return png(figure)


def _curve(panel: Axes, points: Sequence[Point], metric: str, line: str, paint: str, told: str) -> None:
    known = [
        (point.values.get("epoch", point.step), point.values[metric]) for point in points if metric in point.values
    ]
    panel.plot(
        [x for x, _ in known],
        [y for _, y in known],
        line,
        color=paint,
        linewidth=2.0 if told else 0.9,
        marker="o" if told or len(known) == 1 else None,
        markersize=4,
        label=told or None,
    )


def _curves_of(facts: Facts, result: Result) -> Iterator[tuple[Point, ...]]:
    return (facts.curves.of(result.study.name, trial.number) for trial in result.study.trials)


def _best_so_far(facts: Facts, fonts: Fonts) -> bytes:
    shown = [(task, [r for r in results if any(_curves_of(facts, r))]) for task, results in facts.tasks.items()]
    shown = [(task, results) for task, results in shown if results][:MOST_PANELS]
    if not shown:
        raise _NothingToShow("the run's folder has no record of its evaluations")
    size = (5.2, 4.0) if len(shown) > 1 else (8.4, 4.6)
    figure, panels = grid(len(shown), columns=3, size=size)
    for panel, (task, results) in zip(panels, shown, strict=True):
        for place, result in enumerate(results):
            costs, bests = best_against_cost(facts, result)
            name = fonts.label(facts.label(result)) or None
            panel.step([cost / 60 for cost in costs], bests, where="post", color=colour(place), linewidth=2, label=name)
            panel.plot(costs[-1] / 60, bests[-1], "o", color=colour(place))
        ends = [best_against_cost(facts, result)[0][-1] for result in results]
        if min(ends) > 0 and max(ends) > _LOG * min(ends):
            panel.set_xscale("log")
            panel.xaxis.set_major_formatter(lambda minutes, _: f"{minutes:g}")
        else:
            panel.set_xlim(left=0)
        panel.set_title(fonts.label(task))
        panel.set_xlabel("time of all trials, minutes")
        panel.set_ylabel(fonts.label(f"best {results[0].study.objective} so far"))
    legend(figure, max(panels, key=lambda panel: len(panel.get_legend_handles_labels()[1])))
    return png(figure)


def best_against_cost(facts: Facts, result: Result) -> tuple[list[float], list[float]]:
    """Seconds that the study's trials were under way at each evaluation of its search, and the best score by then."""
    events: list[tuple[float, float, float]] = []
    for trial in result.study.trials:
        before = 0.0
        for point in facts.curves.of(result.study.name, trial.number) if trial.rerun_of is None else ():
            if "objective" in point.values:
                events.append((point.at_s, point.cost_s - before, point.values["objective"]))
                before = point.cost_s
    choose = max if result.study.direction == "maximise" else min
    costs, bests, total = [], list[float](), 0.0
    for _, cost, value in sorted(events):
        total += cost
        costs.append(total)
        bests.append(choose([*bests[-1:], value]))
    return costs, bests


# -- hyperparameters -------------------------------------------------------------------------------------------


def _importance(weighed: Weights, fonts: Fonts) -> bytes:
    found = weighed.shares
    paths = list(dict.fromkeys(path for shares in found.values() for path in shares))
    if not paths:
        raise _NothingToShow("; ".join(dict.fromkeys(weighed.lacking.values())))
    means = {path: sum(shares.get(path, 0.0) for shares in found.values()) / len(found) for path in paths}
    paths.sort(key=lambda path: means[path])
    figure, (panel,) = grid(1, columns=1, size=(8.0, 1.8 + 0.55 * len(paths)))
    bars = panel.barh(range(len(paths)), [means[path] for path in paths], color=colour(4), height=0.62)
    if len(found) > 1:
        for place, path in enumerate(paths):
            shares = [each[path] for each in found.values() if path in each]
            panel.plot(shares, [place] * len(shares), "o", color="#333333", markersize=4, alpha=0.7)
    else:
        panel.bar_label(bars, [f"{means[path]:.0%}" for path in paths], padding=4)
    panel.set_yticks(range(len(paths)), [fonts.label(path) for path in paths])
    panel.set_xlim(0, 1.05)
    panel.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    panel.xaxis.set_major_locator(MaxNLocator(6))
    panel.grid(visible=False, axis="y")
    of = f"mean of {len(found)} studies" if len(found) > 1 else fonts.label(next(iter(found)))
    panel.set_title(f"importance: {of}")
    return png(figure)


def _title(facts: Facts, result: Result) -> str:
    cell = facts.label(result)
    return f"{result.study.task}\n{cell}" if cell else result.study.name


def _characters(state: RunState) -> set[str]:
    """Of everything that is drawn."""
    texts: list[object] = []
    for study in state.studies:
        texts += [study.task, study.name, study.objective, *study.cell.values()]
        texts += [value for trial in study.trials for value in trial.config.values()]
    return {letter for text in texts if isinstance(text, str) for letter in text}
