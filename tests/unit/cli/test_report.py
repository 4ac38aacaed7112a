"""`platform report` on runs that lie on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.report.documents.runs import MadeUp
from tests.unit.report.states import state, study, trial
from tunery.cli.app import run

Capture = pytest.CaptureFixture[str]
SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: small
model: {id: "embedded:minilm"}
tasks: [cola]
tuner: {method: lora, rank: 8, alpha: 16}
matrix: {tuner.method: [lora, qlora]}
search: {trials: 2, space: {tuner.rank: {choice: [4, 8]}}}
"""


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "home", SPEC)


def error(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)["error"]


def test_it_writes_the_files_answers_the_matrix_and_says_what_is_next(
    made_up: MadeUp, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "new" / "out"
    assert run(["report", "small", "--to", str(target)]) == 0
    out = capsys.readouterr().out
    assert "cola: what does tuner.method change?\n  lora is better than qlora by 0." in out
    assert "not drawn: data_scale_comparison.png: all studies have the same data.max_train" in out
    assert f"next: platform compare {made_up.folder.run_id}" in out
    assert "report.html" in out
    assert {"report.html", "report.md", "results_summary.csv", "all_results.json", "method_comparison.png",
            "loss_curves.png"} <= {file.name for file in target.iterdir()}  # fmt: skip
    assert len(list(target.glob("results_*.xlsx"))) == 1
    assert not made_up.folder.report.exists()


def test_by_default_it_is_written_into_the_run_s_folder(made_up: MadeUp, capsys: Capture) -> None:
    assert run(["report", made_up.folder.run_id, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folder"] == str(made_up.folder.report)
    assert sorted(document["files"]) == sorted(file.name for file in made_up.folder.report.iterdir())
    assert [answer["question"] for answer in document["answers"]] == [
        "cola: what does tuner.method change?", "cola: what is best?",
    ]  # fmt: skip
    assert set(document["left_out"]) >= {"data_scale_comparison.png"}
    assert document["warnings"] == []


def test_a_plan_of_another_version_costs_the_importance_only(made_up: MadeUp, capsys: Capture) -> None:
    made_up.folder.plan_file.write_text('{"run_id": "small", "colour": 1}')
    assert run(["report", "small", "-o", "json"]) == 0
    printed = capsys.readouterr()
    assert "was written by another version of tunery" in printed.err
    assert json.loads(printed.out)["left_out"]["importance.png"] == "its plan cannot be read"


def test_a_folder_that_cannot_be_written_is_named(made_up: MadeUp, tmp_path: Path, capsys: Capture) -> None:
    assert made_up.state
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "out"
    assert run(["report", "small", "--to", str(target), "-o", "json"]) == 2
    assert error(capsys)["message"].startswith(f"cannot write to {target}: Not a directory; --to names another")


def test_a_run_without_a_result_has_nothing_to_report(made_up: MadeUp, capsys: Capture) -> None:
    nothing = state(study("cola", (trial(0, "failed"),)), run_id=made_up.folder.run_id, status="failed")
    made_up.folder.write_state(nothing)
    assert run(["report", "small", "-o", "json"]) == 3
    found = error(capsys)
    assert found["type"] == "NotFoundError"
    assert "has no trial with a result: there is nothing to report; platform compare" in found["message"]
    assert not made_up.folder.report.exists()
