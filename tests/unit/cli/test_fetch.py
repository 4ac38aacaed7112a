from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stand_ins.hubs import Hubs, Repository, serving
from tunery.cli.app import run

SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: small
model: {id: org/one}
tasks: [acceptability]
data: {source: embedded}
tuner: {method: lora}
"""


def model(seed: int) -> Repository:
    weights = bytes((index + seed) % 251 for index in range(50_000))
    return Repository({"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": weights})


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving(Hubs({"org/one": model(1), "org/two": model(2)})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
        yield made


@pytest.fixture
def spec(tmp_path: Path) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(SPEC)
    return str(file)


def test_every_model_of_a_matrix_is_fetched_once(hubs: Hubs, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--set", "matrix.model.id=[org/one, org/two]", "--set", "matrix.tuner.rank=[4, 8]"]
    assert run(["fetch", spec, *both, "-o", "json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [(each["kind"], each["id"], each["source"]) for each in document["fetched"]] == [
        ("model", "org/one", "hub"), ("model", "org/two", "hub")
    ]  # fmt: skip
    first = document["fetched"][0]
    assert first["commit"] == hubs.models["org/one"].commit
    assert first["files"] == {"config.json": 2, "model.safetensors": 50_000, "tokenizer.json": 2}
    assert document["downloaded"] == 2 * 50_002, "config.json and tokenizer.json are one blob"
    assert document["local"] == ["data of acceptability: generated"]
    assert len([each for each in hubs.sent if each.path == "model.safetensors"]) == 2
    assert "org/one: 48.8 KiB of 48.8 KiB" in printed.err

    assert run(["fetch", spec, *both]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("all is there and as it should be; nothing was downloaded") == 2
    assert f"next: platform submit {spec} --set" in printed.out
    assert printed.out.rstrip().endswith("--offline")


def test_offline_names_what_is_missing_and_the_command(
    hubs: Hubs, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [spec, "--set", "model.revision=main"]
    for command in ("plan", "submit", "fetch"):
        assert run([command, *changed, "--offline"]) == 3
        told = capsys.readouterr().err
        assert f"org/one @ main was not fetched to {tmp_path}/hub/models--org--one" in told
        assert f"with a network: platform fetch {spec} --set model.revision=main" in told
    assert hubs.requests == []
    assert not (tmp_path / "home" / "runs").exists(), "nothing was started"

    assert run(["fetch", *changed]) == 0
    hubs.forget()
    for command in ("plan", "fetch"):
        assert run([command, *changed, "--offline"]) == 0
    assert hubs.requests == []


def test_the_environment_can_say_offline(
    hubs: Hubs, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(["plan", spec]) == 3
    assert "org/one was not fetched" in capsys.readouterr().err
    assert hubs.requests == []


def test_from_modelscope(hubs: Hubs, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    scope = [spec, "--set", "model.source=modelscope"]
    assert run(["fetch", *scope, "-o", "json"]) == 0
    (fetched,) = json.loads(capsys.readouterr().out)["fetched"]
    assert (fetched["source"], fetched["commit"]) == ("modelscope", hubs.models["org/one"].commit)
    assert all("/api/v1/" in request for request in hubs.requests)
    assert run(["plan", *scope, "--offline"]) == 0
    assert "org/one on ModelScope" in capsys.readouterr().out
    assert run(["plan", spec, "--offline"]) == 3, "the same id on the hub was not fetched"


def test_folders_need_no_fetching(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--set", f"model.id={tmp_path}", "--set", f"data={{source: path, root: {tmp_path}}}"]
    assert run(["fetch", spec, *folder]) == 0
    told = capsys.readouterr().err
    assert f"nothing to fetch for model {tmp_path}: a folder" in told
    assert f"nothing to fetch for data of acceptability: the folder {tmp_path}" in told


@pytest.mark.usefixtures("hubs")
def test_what_was_altered_is_said_to_be_fetched_again(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", spec]) == 0
    (weights,) = (tmp_path / "hub").rglob("model.safetensors")
    weights.write_bytes(b"x" * 50_000)
    capsys.readouterr()
    assert run(["fetch", spec, "--offline"]) == 3
    assert "model.safetensors was altered" in capsys.readouterr().err
    assert run(["fetch", spec]) == 0
    assert "model.safetensors was not as the hub has it, and was fetched again" in capsys.readouterr().err
    assert run(["fetch", spec, "--offline"]) == 0


def test_exit_codes_and_advice(
    hubs: Hubs, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", spec, "--set", "model.id=org/none"]) == 3
    assert "is not on http://127.0.0.1" in capsys.readouterr().err
    hubs.models["org/one"].gated = True
    assert run(["fetch", spec]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run(["fetch", spec, "-o", "json"]) == 6
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "HubUnreachableError"


def test_a_token_may_come_from_the_profile(
    hubs: Hubs, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hubs.models["org/one"].gated = True
    (tmp_path / "secret").write_text(hubs.token)
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[profiles.team.secrets]\nHF_TOKEN = {{file = "{tmp_path}/secret"}}\n')
    assert run(["fetch", spec, "--profile", "team"]) == 0
    printed = capsys.readouterr()
    assert hubs.token not in printed.out + printed.err
    assert f"platform submit {spec} --profile team --offline" in printed.out


@pytest.mark.usefixtures("hubs")
def test_looking_offline_loads_nothing_heavy(spec: str) -> None:
    assert run(["fetch", spec]) == 0
    code = (
        "import sys; from tunery.cli.app import run; code = run(sys.argv[1:]);"
        "print(code, sorted({'torch', 'ray', 'datasets', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "plan", spec, "--offline"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
