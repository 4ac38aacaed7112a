"""The replay of recorded curves: what it spends, what it shows to whom, and what it reads and writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import learning_curves, search
from benchmarks.learning_curves import Axes, Curve, Table
from tunery.cluster.draws import First

EPOCHS = 9
AXES: Axes = {
    "train.learning_rate": tuple(1e-4 * 2**step for step in range(10)),
    "tuner.rank": (4.0, 32.0),
    "train.batch_size": (8.0, 32.0, 128.0),
}


def worth(rate: float) -> float:
    return -abs(math.log10(rate) + 2.5)


@pytest.fixture
def table() -> Table:
    """Learning rates near 3e-3 are the best from the first epoch on; the largest diverges."""
    curves = []
    for cell in learning_curves.cells(AXES):
        scores = tuple(0.8 + 0.1 * worth(cell[0]) + 0.01 * epoch for epoch in range(EPOCHS))
        curves.append(Curve(cell, (math.nan,) * EPOCHS if cell[0] == AXES["train.learning_rate"][-1] else scores, 9.0))
    return Table("made-up", AXES, {curve.cell: curve for curve in curves})


@pytest.mark.parametrize("arm", ["ray", "ray-ours", "ours", "random"])
def test_a_search_spends_its_budget_and_gets_better(arm: str, table: Table) -> None:
    found = search.replay(table, search.ARMS[arm](3, table, 1), budget=90, workers=4)
    assert len(found.chosen) == len(found.reached) == 90
    assert found.reached == sorted(found.reached)
    assert table.best - table.curves[found.chosen[-1]].final < table.best - table.curves[found.chosen[0]].final
    assert found.trials > 90 / EPOCHS + 4, "some were stopped early"


def test_what_was_stopped_is_complete_for_ray_and_pruned_for_us(table: Table) -> None:
    ours, rays = search.ours(0, table, 1), search.rays(0, table, 1, our_sampler=False)
    for rig in (ours, rays):
        search.replay(table, rig, budget=90, workers=4)
    states = [
        {trial.state.name for trial in study.get_trials() if 0 < len(trial.intermediate_values) < EPOCHS}
        for study in (ours.searcher._study, rays.searcher._ot_study)  # type: ignore[attr-defined]  # of a known class
    ]
    assert states[0] - {"RUNNING"} == {"PRUNED"}
    assert "PRUNED" not in states[1]


def test_a_warm_start_begins_with_the_best_there_was(table: Table) -> None:
    best = max(table.curves.values(), key=lambda curve: -1.0 if math.isnan(curve.final) else curve.final)
    places = {axis: AXES[axis].index(value) for axis, value in zip(AXES, best.cell, strict=True)}
    rig = search.ours(0, table, 1, firsts=[First(places, "registry")])
    found = search.replay(table, rig, budget=4 * EPOCHS, workers=4)
    assert found.chosen[-1] == best.cell


def test_curves_are_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curves, "FOLDER", tmp_path / "curves")
    cells = list(learning_curves.cells(AXES))
    written = [Curve(cells[0], (0.25, 0.5), 1.5), Curve(cells[1], (0.25, math.nan), 2.0)]
    for curve in written:  # one after another, as packs end
        learning_curves.append("sst2", AXES, [curve])
    read = learning_curves.read("sst2")
    assert read.curves[cells[0]] == written[0]
    assert math.isnan(read.curves[cells[1]].final)
    assert (read.epochs, read.best) == (2, 0.5)
