from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunery.cli.app import run


def test_writes_a_spec_that_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new folder" / "first.yaml"
    assert run(["init", str(file), "--task", "cola", "--task", "sst2", "--model", "Qwen/Qwen2.5-0.5B"]) == 0
    assert f"next: platform validate '{file}'" in capsys.readouterr().out
    assert run(["validate", str(file), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["studies"] == 2
    assert file.read_text().count("# ") > 5


def test_without_arguments_it_is_the_embedded_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init"]) == 0
    assert "tasks: [acceptability]" in (tmp_path / "sweep.yaml").read_text()


def test_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("mine")
    assert run(["init", str(file)]) == 4
    assert file.read_text() == "mine"
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "clola"], "error: unknown task 'clola'; did you mean 'cola'?"),
        (["--model", "https://x"], "error: 'https://x' is a URL"),
    ],
)
def test_what_cannot_be_a_spec_is_not_written(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["init", str(tmp_path / "x.yaml"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "/proc/nowhere/x.yaml"]) == 2
    assert "cannot write" in capsys.readouterr().err
