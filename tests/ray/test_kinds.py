"""One sweep with every kind of task on one decoder, by adapters and in full: what is registered answers at once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, LlamaConfig

from storage.registry import Registry
from tests.ray.conftest import Begin, Sweep, eventually
from tests.unit.inference.conftest import tokenizer
from tunery.cluster.data import place_of
from tunery.home import Home
from tunery.inference.evaluate import evaluate
from tunery.inference.generator import Generator
from tunery.inference.model import open_model
from tunery.inference.predictor import Prediction
from tunery.rows import evaluation_sets
from tunery.runs import TrialState

pytestmark = pytest.mark.ray

TEXTS = ("the cat sat", "a dog was", "john dog think")
ANSWERS = {"cat": "he sat on mat", "dog": "she was smart"}


def model(folder: Path) -> Path:
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(bert=False).save_pretrained(folder)
    return folder


def data(root: Path) -> Path:
    """Which animal: as a class, as a number, and what to say to it. Every row is there several times."""
    for name in ("animals", "numbers", "replies"):
        (root / name).mkdir(parents=True)
        lines = []
        for place in range(96):
            word = ("cat", "dog")[place % 2]
            text = f"{('a', 'the', 'john')[place % 3]} {word} {('sat', 'was', 'no', 'think')[place % 4]}"
            label = {"animals": word, "numbers": float(place % 2), "replies": ANSWERS[word]}[name]
            lines.append(json.dumps({"text": text, "label": label}) + "\n")
        (root / name / "train.jsonl").write_text("".join(lines))
    return root


def trials_of(sweep: Sweep, method: str) -> list[TrialState]:
    return [
        trial
        for study in sweep.plan.studies
        if study.tuner.method == method
        for trial in sweep.study(study.name).trials
    ]


def test_every_kind_is_trained_promoted_and_asked(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, config = tmp_path / "scratch", tmp_path / "config.toml"
    config.write_text(f'default = "node"\n[profiles.node]\ncpus = 2\nweights = "{scratch}"\n')
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    own = {
        "animals": {"kind": "classification", "text": "text", "labels": ["cat", "dog"]},
        "numbers": {"kind": "regression", "text": "text"},
        "replies": {"kind": "generation", "prompt": "{text}"},
    }
    sweep = begin(
        model={"id": str(model(tmp_path / "llama")), "dtype": "float32"}, tasks=list(own), custom=own,
        data={"source": "path", "root": str(data(tmp_path / "rows"))}, matrix={"tuner.method": ["lora", "full", "qst"]},
        tuner={"method": "lora"}, search={"trials": 1, "pruner": {"name": "none"}}, search__space={},
        train={"epochs": 30, "batch_size": 8, "learning_rate": 3e-3, "max_length": 16, "max_new_tokens": 6},
        registry={"name": "{task}-{method}"}, tracking={"tensorboard": True},
    )  # fmt: skip
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    (copy,) = (each for each in scratch.iterdir() if each.is_dir())
    assert (copy / "model.safetensors").exists(), "one copy for the packs of all methods"
    registry = Registry(sweep.home.tracking_uri)
    assert len(sweep.plan.studies) == 9
    trials = {method: trials_of(sweep, method) for method in ("lora", "full", "qst")}
    last = max(min(trial.started_at or 0.0 for trial in each) for each in trials.values())
    ended = [max(trial.ended_at or 0.0 for trial in each) for each in trials.values()]
    assert last >= min(ended), (
        "of three bases on two cores the third one's packs wait until the first one's have gone home"
    )
    for study in sweep.plan.studies:
        state = sweep.study(study.name)
        method = study.tuner.method
        assert state.status == "finished"
        assert any("have the text of an earlier one" in note for note in state.notes)
        champion = registry.champion(f"{study.task}-{method}")
        assert champion is not None
        opened = open_model(f"{study.task}-{method}", sweep.home)
        assert opened.card.merged == (method == "full")
        found = evaluate(opened, study.definition, evaluation_sets(study.definition, place_of(study)))
        best = state.trials[0].objective
        assert best is not None
        assert found.objective == pytest.approx(best, abs=0.02)
        if method == "full":
            assert best > 0.9
        assert list((sweep.folder.root / "tensorboard" / study.name / "0").glob("events.*"))
    said = Generator.load("replies-full", sweep.home)
    assert said("the cat sat").text == ANSWERS["cat"]
    assert said("a dog was").text == ANSWERS["dog"]
    answered_over_http(sweep.home)


def answered_over_http(home: Home) -> None:
    """All of them in one server; a promotion is served without a restart, and who has no token gets nothing."""
    names = [f"{task}-{method}" for task in ("animals", "numbers", "replies") for method in ("lora", "full", "qst")]
    with served(home, names, token="open sesame") as url, httpx.Client(base_url=url, timeout=60) as anyone:
        asked: dict[str, Any] = {
            "/v1/predict": {"inputs": [{"text": "a cat"}]},
            "/v1/chat/completions": {"messages": [{"role": "user", "content": "a cat"}]},
            "/v1/models": None,
            "/metrics": None,
        }
        for route, body in asked.items():
            for headers in ({}, {"Authorization": "Bearer open says me"}):
                refused = anyone.request("POST" if body else "GET", route, json=body, headers=headers)
                assert (refused.status_code, refused.json()["error"]["type"]) == (401, "unauthorised"), route
        # Nothing of a body is looked at before the token is.
        assert anyone.post("/v1/predict", content=b"{").status_code == 401
        assert anyone.get("/health").json() == {"status": "ok", "models": names}
        assert "/v1/chat/completions" in anyone.get("/openapi.json").json()["paths"]
        page = anyone.get("/docs").text
        assert "https://" not in page, "a server may have no internet"
        for script in re.findall(r'(?:src|href)="([^"]+)"', page):
            assert anyone.get(script).status_code == 200, script
        anyone.headers["Authorization"] = "Bearer open sesame"
        assert anyone.post("/v1/predict", content=b"{").status_code == 400
        for wrong in (anyone.get("/v1/nothing"), anyone.get("/v1/predict")):
            assert wrong.status_code in (404, 405)
            assert "there is: /health" in wrong.json()["error"]["message"]
        one = [{"role": "user", "content": "a cat"}]
        for route, refused_body, status, kind, why in (
            (
                "predict",
                {"model": "nobody", "inputs": [{"text": "a cat"}]},
                404,
                "not_found",
                "no model 'nobody' is served",
            ),
            ("predict", {"inputs": [{"text": "a cat"}]}, 400, "bad_input", "several models are served, name one"),
            ("predict", {"model": names[0], "inputs": [{"txt": "a cat"}]}, 400, "bad_input", "inputs.0.txt"),
            ("predict", {"model": names[0], "inputs": [{"text": "a", "text2": "b"}]}, 400, "bad_input", "second"),
            ("predict", {"model": "replies-lora", "inputs": [{"text": "a"}]}, 400, "bad_input", "/v1/chat/completions"),
            ("chat/completions", {"model": names[0], "messages": one}, 400, "bad_input", "/v1/predict"),
            (
                "chat/completions",
                {"model": "replies-lora", "messages": one, "stream": True},
                400,
                "bad_input",
                "no stream",
            ),
            ("chat/completions", {"model": "replies-lora", "messages": one, "n": 2}, 400, "bad_input", "n: 1"),
            (
                "chat/completions",
                {"model": "replies-lora", "messages": one, "temperature": 1},
                400,
                "bad_input",
                "greedy",
            ),
            ("chat/completions", {"model": "replies-lora", "messages": one * 2}, 400, "bad_input", "one question"),
        ):
            wrong = anyone.post(f"/v1/{route}", json=refused_body)
            error = wrong.json()["error"]
            assert (wrong.status_code, error["type"]) == (status, kind), error
            assert why in error["message"]
        for name in names:
            alone = open_model(name, home)
            if name.startswith("replies"):
                for text in TEXTS:
                    question = {"model": name, "messages": [{"role": "user", "content": text}]}
                    found = anyone.post("/v1/chat/completions", json=question).json()
                    assert found["choices"][0]["message"]["content"] == alone(text).line
                    assert found["usage"]["completion_tokens"] <= 6
                continue
            inputs: dict[str, Any] = {"model": name, "inputs": [{"text": text} for text in TEXTS]}
            found = anyone.post("/v1/predict", json=inputs).json()
            assert found["version"] == f"{name}/1"
            for text, said in zip(TEXTS, found["predictions"], strict=True):
                expected = alone(text)
                assert isinstance(expected, Prediction)
                assert said["label"] == expected.label
                assert said["score"] == pytest.approx(expected.score, abs=1e-3)
        before = counted(anyone.get("/metrics").text)
        for name in ("animals-lora", "animals-full"):
            ask = {"model": name, "inputs": [{"text": "a cat"}]}
            said = anyone.post("/v1/predict", json=ask).json()
            promoted(home, name)
            eventually(partial(asked_version, anyone, ask, f"{name}/2"), f"the promoted version of {name} is served")
            assert anyone.post("/v1/predict", json=ask).json()["predictions"] == said["predictions"]
        listed = {model["id"]: model["version"] for model in anyone.get("/v1/models").json()["data"]}
        assert listed["animals-lora"] == "animals-lora/2"
        metrics = anyone.get("/metrics").text
        assert 'tunery_model{model="animals-lora",version="animals-lora/2"} 1.0' in metrics
        # Nothing was started anew for it.
        assert counted(metrics) == before == ["1.0"]
        first_replica(home).kill()
        gone = eventually(partial(failing, anyone), "it is seen that a model's process is gone")
        assert gone["type"] == "starting"
        assert "animals-lora" in gone["message"]
        eventually(lambda: anyone.get("/health").status_code == 200, "the process is there again")
        ask = {"model": "animals-lora", "inputs": [{"text": "a cat"}]}
        eventually(partial(asked_version, anyone, ask, "animals-lora/2"), "and serves what was promoted")


def first_replica(home: Home) -> psutil.Process:
    """The process of the first model's base."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name().startswith("ray::ServeReplica:tunery:base-0"):
                found.append(process)
    own = [each for each in found if each.environ().get("TUNERY_HOME") == str(home.root)]
    assert len(own) == 1, found
    return own[0]


def failing(anyone: httpx.Client) -> Any:
    """What /health says is wrong, if anything is."""
    answer = anyone.get("/health")
    return answer.json()["error"] if answer.status_code == 503 else None


def asked_version(anyone: httpx.Client, ask: dict[str, Any], wanted: str) -> bool:
    return bool(anyone.post("/v1/predict", json=ask).json()["version"] == wanted)


def counted(metrics: str) -> list[str]:
    """Requests of a model that was not promoted."""
    line = 'tunery_requests_total{model="numbers-lora",route="predict",status="200"} '
    return [each.removeprefix(line) for each in metrics.splitlines() if each.startswith(line)]


def promoted(home: Home, name: str) -> None:
    """Another version of a model, and the champion's alias on it."""
    client = MlflowClient(home.tracking_uri)
    first = client.get_model_version(name, "1")
    assert first.source is not None
    second = client.create_model_version(name, first.source, first.run_id, tags=first.tags)
    client.set_registered_model_alias(name, "champion", second.version)


@contextmanager
def served(home: Home, models: list[str], *, token: str) -> Iterator[str]:
    """`platform serve` in a process of its own; where it answers."""
    command = [sys.executable, "-m", "tunery.cli.app", "serve", *models, "--port", "0", "-o", "json"]
    environment = os.environ | {"TUNERY_HOME": str(home.root), "TUNERY_SERVE_TOKEN": token, "OMP_NUM_THREADS": "1"}
    log = home.root / "serve.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, start_new_session=True
        )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline().decode()
            assert line, log.read_text()
            text += line
        assert log.read_text() == "", "nothing is told but what was asked for"
        yield json.loads(text)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
