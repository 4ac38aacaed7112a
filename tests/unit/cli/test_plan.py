from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunery.cli.app import run
from tunery.cli.plan import count, size
from tunery.plan import run_id
from tunery.spec import load_spec

SPECS = Path(__file__).parents[3] / "specs"


def test_says_what_would_run_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    file = SPECS / "glue_sweep.yaml"
    assert run(["plan", str(file)]) == 0
    printed = capsys.readouterr().out
    assert run_id(load_spec(file)) in printed
    for fragment in (
        "9 studies, 136 trials",
        "Qwen/Qwen2.5-1.5B @ 8faed761",
        "tokens/epoch",
        "tuner.rank: one of 4, 8",
    ):
        assert fragment in printed
    assert "a Ray started for the run" in printed
    assert f"next: platform submit {file}" in printed
    assert "…" not in printed, "nothing may be cut off at 120 columns"


def test_workers_share_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(SPECS / "quickstart.yaml"), "--set", "resources.workers=2"]) == 0
    printed = capsys.readouterr().out
    assert "auto x 2 x 1 CPU" in printed
    assert "MiB / 2, 2 x" in printed


def test_stops_there(tmp_path: Path) -> None:
    assert run(["plan", str(SPECS / "quickstart.yaml")]) == 0
    assert not (tmp_path / "home").exists()


def test_names_the_profiles_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.team]\nray = "10.0.0.7:6379"\ntracking_uri = "https://mlflow.example.org"\n')
    assert run(["plan", str(SPECS / "quickstart.yaml"), "--profile", "team"]) == 0
    printed = capsys.readouterr().out
    assert "the Ray at 10.0.0.7:6379" in printed
    assert "https://mlflow.example.org" in printed
    assert "--profile team" in printed
    assert run(["plan", str(SPECS / "quickstart.yaml"), "--profile", "taem"]) == 2
    assert "no profile 'taem'; did you mean 'team'?" in capsys.readouterr().err


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            [
                "plan",
                str(SPECS / "glue_small.yaml"),
                "-o",
                "json",
                "--set",
                "data.max_train=100",
                "--set",
                "search.trials=4",
            ]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["trials"] == 28
    assert [study["task"] for study in document["studies"]] == ["cola", "sst2", "stsb", "wnli", "qnli", "mnli", "qqp"]
    study = document["studies"][0]
    assert study["estimate"]["train_rows"] == 100
    assert study["default_draw"]["tuner.rank"] == study["tuner"]["rank"]
    assert document["where"] == {"profile": "local", "target": "local", "ray": None}
    assert document["pack_bytes"] > study["estimate"]["base_bytes"]


def test_a_folder_that_is_not_here_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(SPECS / "cola_qlora_smollm2.yaml"), "--set", f"model.id={tmp_path}/none"]) == 0
    assert "no such folder on this machine" in capsys.readouterr().out


def test_numbers_for_people() -> None:
    assert [count(number) for number in (None, 0, 1234, 22_700_000, 1_543_000_000)] == [
        "unknown", "0", "1,234", "22.7M", "1.54B",
    ]  # fmt: skip
    assert [size(number) for number in (None, 5, 2048, 90_845_184, 3 * 2**40)] == [
        "unknown", "5 B", "2.0 KiB", "86.6 MiB", "3.0 TiB",
    ]  # fmt: skip
