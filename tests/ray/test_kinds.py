"""One sweep with every kind of task on one decoder, by adapters and in full: what is registered answers at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from storage.registry import Registry
from tests.ray.conftest import Begin
from tests.unit.inference.conftest import tokenizer
from tunery.cluster.data import place_of
from tunery.inference.evaluate import evaluate
from tunery.inference.generator import Generator
from tunery.inference.model import open_model
from tunery.rows import evaluation_sets

pytestmark = pytest.mark.ray

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


def test_every_kind_is_trained_promoted_and_asked(begin: Begin, tmp_path: Path) -> None:
    own = {
        "animals": {"kind": "classification", "text": "text", "labels": ["cat", "dog"]},
        "numbers": {"kind": "regression", "text": "text"},
        "replies": {"kind": "generation", "prompt": "{text}"},
    }
    sweep = begin(
        model={"id": str(model(tmp_path / "llama")), "dtype": "float32"}, tasks=list(own), custom=own,
        data={"source": "path", "root": str(data(tmp_path / "rows"))}, matrix={"tuner.method": ["lora", "full"]},
        tuner={"method": "lora"}, search={"trials": 1, "pruner": {"name": "none"}}, search__space={},
        train={"epochs": 30, "batch_size": 8, "learning_rate": 3e-3, "max_length": 16, "max_new_tokens": 6},
        registry={"name": "{task}-{method}"}, tracking={"tensorboard": True},
    )  # fmt: skip
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    registry = Registry(sweep.home.tracking_uri)
    assert len(sweep.plan.studies) == 6
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
