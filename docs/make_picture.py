"""Draw a finished run for the README: the objective of each trial, and the best so far.

    python docs/make_picture.py RUN [--out docs/sweep.svg]

RUN is a run's id, as `platform ls` prints it, or a run's folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from tunery import tasks
from tunery.home import Home
from tunery.runs import RunFolder, RunState, StudyState, TrialState

COLOURS = {"finished": "#2166ac", "pruned": "#92c5de", "failed": "#b2182b", "stopped": "#999999"}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sweep.svg")
    chosen = parser.parse_args(arguments)
    folder = Path(chosen.run) if Path(chosen.run).is_dir() else Home.from_environment().runs / chosen.run
    draw(RunFolder(folder).state(), chosen.out)
    print(f"written: {chosen.out}")


def draw(state: RunState, out: Path) -> None:
    """One panel a study. Studies without a measured trial are left out."""
    studies = [study for study in state.studies if any(trial.objective is not None for trial in study.trials)]
    assert studies, f"{state.run_id} has no trial with an objective"
    columns = min(3, len(studies))
    rows = -(-len(studies) // columns)
    # The same run gives the same file: ids would be random and the date is of no use.
    mpl.rcParams.update({"svg.hashsalt": state.run_id, "font.size": 9})
    size = (max(5.0, 3.4 * columns), 2.8 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(studies) :]:
        axis.set_visible(False)
    for axis, study in zip(axes.flat, studies, strict=False):
        _panel(axis, study)
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def _panel(axis: Axes, study: StudyState) -> None:
    measured = [trial for trial in study.trials if trial.objective is not None]
    for status, colour in COLOURS.items():
        chosen = [trial for trial in measured if trial.status == status]
        if chosen:
            axis.scatter(
                [t.number for t in chosen], [t.objective for t in chosen], color=colour, label=status, zorder=3
            )
    best_so_far = _running_best(measured, maximise=tasks.get(study.task).direction == "maximise")
    axis.step([t.number for t in measured], best_so_far, where="post", color="#bbbbbb", label="best so far")
    axis.set_title(study.name)
    axis.set_xlabel("trial")
    axis.set_ylabel(study.objective)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)


def _running_best(trials: Sequence[TrialState], *, maximise: bool) -> list[float]:
    best: list[float] = []
    choose = max if maximise else min
    for trial in trials:
        assert trial.objective is not None
        best.append(choose([*best[-1:], trial.objective]))
    return best


if __name__ == "__main__":
    main()
