"""What the benchmarks write down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report


def test_a_table_is_a_github_table_with_aligned_columns() -> None:
    lines = report.table(["arm", "s"], [["a", "1.0"], ["longer", "12.5"]]).splitlines()
    assert lines == ["| arm    | s    |", "| ------ | ---- |", "| a      | 1.0  |", "| longer | 12.5 |"]


def test_options_tell_no_places_of_this_machine(tmp_path: Path) -> None:
    shown = report.options({"data": tmp_path / "glue", "model": str(tmp_path / "m"), "task": "cola", "seats": [1, 2]})
    assert shown == {"data": "glue", "model": "m", "task": "cola", "seats": [1, 2]}


def test_the_machine_has_a_date_and_the_versions_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PACKAGES", ("torch", "no-such-package"))
    found = report.machine()
    assert found["torch"]
    assert found["no-such-package"] is None
    assert found["date"].endswith("UTC")


def test_saving_again_replaces_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    report.save("x", {"cells": [1, 2, 3]})
    assert report.save("x", {"cells": []}) == "benchmarks/results/x.json"
    assert json.loads((report.RESULTS / "x.json").read_text()) == {"cells": []}
