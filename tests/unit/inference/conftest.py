"""Tiny models with random weights, and real PEFT adapters on them, written by PEFT itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from storage.checkpoints import CheckpointStore
from storage.files import write_whole
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.plan import compile_plan
from tunery.runs import COUNTED, OF, REPORTS, SEAT_STATE, RunFolder, RunState, StudyState, TrialState
from tunery.spec.types import Spec

TEXT = "the a book was written by john she he gave him present no i think that is smart cat dog sat on mat . ,"
LABELS = ("unacceptable", "acceptable")


def tokenizer(*, bert: bool) -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if bert else ["[UNK]", "<s>", "</s>"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *TEXT.split()])}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if bert:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        names = {"unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}  # no pad token: as Llama's
        inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=inputs, **names)


def make_base(folder: Path, *, bert: bool) -> Path:
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    size |= {"vocab_size": 64, "max_position_embeddings": 64}
    # Wider than usual, so that different texts give clearly different logits.
    model = BertModel(BertConfig(**size, initializer_range=0.3)) if bert else LlamaModel(
        LlamaConfig(**size, num_key_value_heads=2, initializer_range=0.3)
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer(bert=bert).save_pretrained(folder)
    return folder


def make_adapter(folder: Path, on: Path, *, bert: bool = True, labels: tuple[str, ...] = LABELS, **card: Any) -> Path:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(on, num_labels=len(labels) or 1)
    head, targets = ("classifier", ["query", "value"]) if bert else ("score", ["q_proj", "v_proj"])
    config = LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=targets, modules_to_save=[head], init_lora_weights=False
    )
    model, words = get_peft_model(model, config), tokenizer(bert=bert)
    if bert and labels:  # a random head gives most texts one label: let it stand between these
        with torch.no_grad():
            own = torch.cat(
                [model(**words(text, return_tensors="pt")).logits for text in ("the cat sat", "she is smart")]
            )
            model.base_model.model.classifier.modules_to_save["default"].bias -= own.mean(dim=0)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    given: dict[str, Any] = {
        "task": "acceptability",
        "kind": "classification" if labels else "regression",
        "labels": labels,
        "base": {"id": str(on)},
        "objective": {"name": "mcc", "value": 0.8},
        "max_length": 32,
    }
    AdapterCard(**given | card).write(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bert"), bert=True)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("llama"), bert=False)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter"), bert)


@pytest.fixture(scope="session")
def llama_adapter(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    return make_adapter(tmp_path_factory.mktemp("llama-adapter"), llama, bert=False)


@pytest.fixture(scope="session")
def value_adapter(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    return make_adapter(tmp_path_factory.mktemp("value-adapter"), bert, labels=(), task="stsb")


def make_run(home: Home, base: Path | str, *, name: str = "small", studies: int = 1) -> RunFolder:
    """A run as its driver leaves it: trial 0 is the best, trial 1 has just begun, trial 2 has failed at once."""
    values: dict[str, Any] = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": name,
        "model": {"id": str(base), "dtype": "float32"},
        "tasks": ("acceptability",),
        "data": {"source": "embedded"},
        "tuner": {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ("query", "value")},
        "train": {"max_length": 32},
        "search": {"trials": 3, "space": {"train.learning_rate": {"choice": [1e-3, 1e-4]}}},
        "matrix": {"tuner.rank": tuple(range(4, 4 + studies))} if studies > 1 else {},
    }
    plan = compile_plan(Spec.model_validate(values))
    folder = RunFolder(home.runs / plan.run_id)
    write_whole(folder.plan_file, plan.model_dump_json().encode())
    trials = (
        TrialState(number=0, status="finished", objective=0.7, step=24, steps=24),
        TrialState(number=1, status="running", step=3, steps=24),
        TrialState(number=2, status="failed", error="diverged at step 2"),
    )
    made = tuple(
        StudyState(name=study.name, task=study.task, trials=trials, best=0, data_fingerprint="rows")
        for study in plan.studies
    )
    folder.write_state(RunState(run_id=plan.run_id, name=name, status="stopped", studies=made))
    return folder


def save_best(folder: RunFolder, study: str, number: int, adapter: Path, step: int, objective: float) -> Path:
    """A checkpoint as a pack writes it at a trial's best evaluation; its folder."""
    files = {file.name: file.read_bytes() for file in adapter.glob("adapter_*")} | {
        SEAT_STATE: b"state",
        COUNTED: b"{}",
        OF: b"{}",
        REPORTS: b"[]",
    }
    store = CheckpointStore(folder.checkpoints(study, number))
    metrics = {"objective": objective, "mcc": objective, "loss": 0.1, "tokens_per_s": 5.0}
    store.save(step, files, metrics=metrics, best=True)
    best = store.best()
    assert best is not None
    return Path(best.where)
