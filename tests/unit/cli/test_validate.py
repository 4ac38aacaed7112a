from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunery.cli.app import run

SPEC = Path(__file__).parents[3] / "specs" / "quickstart.yaml"
BAD = """\
apiVersion: tunery/v1
kind: Sweep
name: bad
model: {id: "embedded:minilm"}
tasks: [cola]
tuner: {method: lara}
search: {trials: 0}
"""


def test_a_good_spec(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(SPEC), "--set", "search.trials=7"]) == 0
    printed = capsys.readouterr()
    assert f"{SPEC} is valid: quickstart-" in printed.out
    assert "1 study, 7 trials" in printed.out
    assert f"next: platform plan {SPEC} --set search.trials=7" in printed.out


def test_all_mistakes_one_a_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(BAD)
    assert run(["validate", str(file), "--set", "train.epoch=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0].startswith("--set train.epoch: unknown key 'epoch' in train; did you mean 'epochs'?")
    assert lines[1].startswith(f"{file}:6:8: tuner: unknown method 'lara'; did you mean 'lora'?")
    assert lines[2].startswith(f"{file}:7:18: search.trials: expected a value at least 1, got 0")
    assert lines[3] == "error: 3 mistakes in the spec; nothing was contacted"


def test_mistakes_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: [")
    assert run(["validate", "-o", "json", str(file)]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "SpecError"
    assert [(m["file"], m["line"], m["column"]) for m in error["mistakes"]] == [(str(file), 2, 1)]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(SPEC), "-o", "json", "--set", "search.trials=3"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["valid"] is True
    assert (document["studies"], document["trials"]) == (1, 3)
    assert printed.err == ""


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(SPEC.with_name("quikstart.yaml"))]) == 2
    assert f"no such file; did you mean {str(SPEC)!r}?" in capsys.readouterr().err
