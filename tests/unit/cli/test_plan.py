from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def memory_of(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["plan", str(SPECS / "quickstart.yaml"), "-o", "json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["memory"]
    return found


def test_a_peak_stands_beside_what_this_machine_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunery.here.share.available_memory", lambda: 20 << 30)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    found = memory_of(capsys)
    assert (found["fits"], found["advice"]) == (True, [])
    assert found["limit_bytes"] == int(0.7 * (20 << 30)) // 2
    assert found["least_bytes"] < found["peak_bytes"] < 2 << 30
    assert run(["plan", str(SPECS / "quickstart.yaml")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"at its peak about {size(found['peak_bytes'])} with libraries and activations, of 7.0 GiB" in printed
    assert "(2 packs at once here)" in printed


def test_what_would_fit_is_told_where_a_plan_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunery.here.share.available_memory", lambda: 20 << 30)
    large = ["--set", "model.id=meta-llama/Llama-3.1-8B", "--set", "tuner.target_modules=[q_proj]"]
    found = memory_of(capsys, *large)
    assert found["fits"] is False
    assert [each["change"].partition(": ")[0] for each in found["advice"]] == ["tuner.method", "model.id"]
    assert all(each["bytes"] <= found["limit_bytes"] and each["cost"] for each in found["advice"])
    assert run(["plan", str(SPECS / "quickstart.yaml"), *large]) == 0, "an estimate refuses nothing"
    printed = " ".join(capsys.readouterr().out.split())
    assert "this does not fit: with the smallest forwards it takes" in printed
    assert "tuner.method: qlora: " in printed
    smaller = memory_of(capsys, *large, "--set", "tuner.method=qlora")
    assert smaller["fits"] is True, "what is advised fits by the same estimate"


def test_what_a_device_or_a_cluster_has_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    found = memory_of(capsys, "--set", "resources.gpus_per_worker=1")
    assert (found["limit_bytes"], found["fits"], found["advice"]) == (None, None, [])
    assert memory_of(capsys, "--set", "model.id=someone/unknown") is None


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
