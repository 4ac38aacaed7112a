"""A matrix with a cell that fails, and the report of it: in the run's folder, in MLflow, and by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openpyxl import load_workbook

from storage.registry import Registry
from tests.ray.conftest import Begin
from tunery.cli.app import run

pytestmark = pytest.mark.ray


def test_a_matrix_is_reported_though_a_cell_failed(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = begin(
        matrix={"train.learning_rate": [2e-3, 1e30], "data.max_train": [48, 96]},
        search__trials=1, search__space={}, train__epochs=1,
    )  # fmt: skip
    assert sweep.run() == 5, sweep.folder.driver_log.read_text()
    studies = {study.name: study for study in sweep.state.studies}
    ended = [(study.cell["train.learning_rate"], study.status) for study in studies.values()]
    assert sorted(ended) == [(2e-3, "finished")] * 2 + [(1e30, "failed")] * 2, "one cell's failure is its own"
    assert sweep.state.status == "failed"
    assert sweep.state.error.startswith("failed: "), "and nothing is said of the report"
    for study in studies.values():
        all_diverged = study.status == "failed"
        assert ("every trial failed" in study.error and "diverged" in study.error) == all_diverged
        for name in (study.name, f"{study.name}/0"):
            run_of_it = sweep.runs()[f"{sweep.folder.run_id}/{name}"]
            assert run_of_it.info.status == ("FAILED" if all_diverged else "FINISHED")
    registered = Registry(sweep.home.tracking_uri).versions("fruits-cola")
    assert len(registered) == 2, "of what failed nothing is registered"

    written = sorted(file.name for file in sweep.folder.report.iterdir())
    assert {"report.html", "report.md", "results_summary.csv", "all_results.json", "data_scale_comparison.png",
            "loss_curves.png", "best_so_far.png"} <= set(written)  # fmt: skip
    (workbook,) = sweep.folder.report.glob("*.xlsx")
    assert load_workbook(workbook)["Results"].max_row == 1 + 4
    told = json.loads((sweep.folder.report / "all_results.json").read_text())
    assert told["status"] == "failed"
    for study in told["studies"]:
        evaluations = [len(trial["evaluations"]) for trial in study["trials"]]
        assert evaluations == [1 if studies[study["study"]].status == "finished" else 0]

    # Every study's own run holds them: whichever of them one looks at.
    client = sweep.mlflow()
    for name in studies:
        parent = sweep.runs()[f"{sweep.folder.run_id}/{name}"]
        kept = sorted(Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "report"))
        assert kept == written, name

    monkeypatch.setenv("TUNERY_HOME", str(sweep.home.root))
    assert run(["report", "small", "--to", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "max_train from 48 to 96: " in out
    assert "No result of cola-" in out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == written
