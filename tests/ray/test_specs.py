"""The small specs of this repository, each from one command to its champions, on models and rows that take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig, PreTrainedTokenizerFast

from storage.registry import Registry
from tests.ray.conftest import LIMIT_S
from tunery import tasks
from tunery.home import Home
from tunery.plan import compile_plan
from tunery.spec import load_spec
from tunery.tasks.task import Task

pytestmark = pytest.mark.ray

SPECS = Path(__file__).parents[2] / "specs"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ROWS = 20

BRIEF = ["search.trials=1", "train.epochs=1", "train.batch_size=8", "train.max_length=48"]
CASES = {
    "cola_qwen2.5_1.5b_small.yaml": ("llama", []),
    "chnsenticorp_qwen2.5_1.5b_small.yaml": ("bert", []),
    "medqa_scale_qwen2.5_3b_small.yaml": (
        "llama",
        ["train.max_new_tokens=4", "matrix={tuner.method: [lora, qlora], data.max_train: [8, 16]}"],
    ),
    "glue_qst_llama3.2_3b_small.yaml": ("llama", []),
    # A class, a value, a pair of three classes; for the methods one task: each study costs two processes' start.
    "glue_bert_small.yaml": ("bert", ["tasks=[cola, stsb, mnli]"]),
    "glue_methods_small.yaml": ("llama", ["tasks=[cola]"]),
}
FIRST, *OTHERS = CASES
"""One goes the whole way in every run of the tests. What the others train, `test_kinds.py` does too, in one run."""


def test_every_small_spec_is_run() -> None:
    assert {file.name for file in SPECS.glob("*_small.yaml")} - {"glue_small.yaml"} == set(CASES)


def model(family: str, folder: Path) -> str:
    """A random one, whose tokenizer knows every letter there is: it splits into bytes."""
    texts = [f"{each.text} {each.text_pair or ''}" for name in tasks.names() for each in tasks.get(name).examples]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["[PAD]", "[CLS]", "[SEP]", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special,
                                                         initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    size = {"vocab_size": 400, "max_position_embeddings": 64, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "bert":
            words.post_processor = processors.TemplateProcessing(
                single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
            )
            AutoModel.from_config(BertConfig(**SIZES, **size)).save_pretrained(folder)
        else:
            config = LlamaConfig(**SIZES, **size, num_key_value_heads=1, bos_token_id=None, eos_token_id=3)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", eos_token="</s>").save_pretrained(folder)
    return str(folder)


def written(task: Task, root: Path) -> None:
    """Its examples over and over, each a little different."""
    folder = root / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    splits = [task.train_split, *(split.name for split in task.eval_splits if not split.held_out)]
    for split in splits:
        lines = [json.dumps(row(task, split, place)) + "\n" for place in range(ROWS)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def row(task: Task, split: str, place: int) -> dict[str, Any]:
    example = task.examples[place % len(task.examples)]
    meant = task.labels.index(str(example.meant)) if task.labels else example.meant
    found: dict[str, Any] = {task.text: f"{example.text} {split} {place}", task.label: meant}
    if task.text_pair:
        found[task.text_pair] = example.text_pair
    if task.prompt:
        found["instruction"] = "请回答"
    return found


@pytest.mark.parametrize("spec", [FIRST, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)])
def test_it_trains_and_promotes(spec: str, tmp_path: Path) -> None:
    family, more = CASES[spec]
    settings = [*BRIEF, *more, f"model.id={model(family, tmp_path / 'model')}", f"data.root={tmp_path / 'rows'}"]
    studies = compile_plan(load_spec(SPECS / spec, overrides=settings)).studies
    for study in studies:
        written(study.definition, tmp_path / "rows")
    home = Home(tmp_path / "home")
    platform = commands(home)
    told = platform("submit", str(SPECS / spec), *(part for each in settings for part in ("--set", each)))
    assert told["status"] == "finished"
    assert [(each["status"], each["champion"]) for each in told["studies"]] == [("finished", True)] * len(studies)
    registry = Registry(home.tracking_uri)
    for study in studies:
        assert registry.champion(study.registry_name) is not None, study.name
    (workbook,) = (home.runs / told["run_id"] / "report").glob("results_*.xlsx")
    assert workbook.stat().st_size
    asked = platform("predict", studies[0].registry_name, "--demo")
    assert len(asked["examples"]) == len(studies[0].definition.examples)


def commands(home: Home) -> Callable[..., Any]:
    """`platform ... -o json` in a process of its own, which must succeed."""

    def platform(*words: str) -> Any:
        environment = os.environ | {"TUNERY_HOME": str(home.root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "tunery.cli.app", *words, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
        return json.loads(done.stdout)

    return platform
