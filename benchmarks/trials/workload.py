"""What every arm of a benchmark trains on: one task's tokens, one configuration, the same for all.

All arms get the same token ids: nothing here belongs to an arm's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from storage.datasets import Fields, read_path
from storage.errors import MissingSplitError
from storage.models import model_folder
from tuners.config import TrainConfig
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig
from tunery import tasks

Tuner = LoraConfig | FullConfig
"""What HF Trainer can train too, alone or with PEFT."""


class Example(NamedTuple):
    """One tokenised row, as `tuners.engine` takes it."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    label: float


@dataclass(frozen=True)
class Tokens:
    """A split in memory."""

    examples: tuple[Example, ...]
    lengths: NDArray[np.int32]
    """Tokens of each example."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


@dataclass(frozen=True)
class Workload:
    """A task, its tokens and the hyperparameters that all arms share."""

    task: str
    model: str
    """Folder of the base model."""
    tuner: Tuner
    train: TrainConfig
    train_set: Tokens
    eval_sets: Mapping[str, Tokens] = field(default_factory=dict)

    def steps_per_epoch(self) -> int:
        return -(-len(self.train_set) // (self.train.batch_size * self.train.accumulation))

    def steps(self) -> int:
        return self.train.epochs * self.steps_per_epoch()

    def warmup_steps(self) -> int:
        return int(np.ceil(self.train.warmup_ratio * self.steps()))


@dataclass(frozen=True)
class Limits:
    """How much of a task is used. Rows are a seeded sample, the same for every arm."""

    max_train: int | None = None
    max_eval: int | None = None
    seed: int = 0


def load(task_name: str, *, root: Path, model: str, tuner: Tuner, train: TrainConfig, limits: Limits) -> Workload:
    """Read and tokenise a task. Optional splits that are not there are left out."""
    task = tasks.get(task_name)
    folder = model_folder(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    fields = Fields(text=task.text, text_pair=task.text_pair, label=task.label, labels=task.labels)

    def read(split: str, limit: int | None) -> Tokens:
        rows = read_path(root, task.folder, split, fields, limit=limit, seed=limits.seed).rows
        texts = [row.text for row in rows]
        pairs = [row.text_pair or "" for row in rows] if task.text_pair else None
        return _tokens(tokenizer, texts, pairs, [row.label for row in rows], train.max_length)

    eval_sets: dict[str, Tokens] = {}
    for split in task.eval_splits:
        try:
            eval_sets[split.name] = read(split.name, limits.max_eval)
        except MissingSplitError:
            if not split.optional:
                raise
    return Workload(
        task=task_name,
        model=folder,
        tuner=tuner,
        train=train,
        train_set=read(task.train_split, limits.max_train),
        eval_sets=eval_sets,
    )


def _tokens(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Sequence[float],
    max_length: int,
) -> Tokens:
    encoded: Mapping[str, Any] = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    ids = [np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]
    types: list[NDArray[np.int8] | None] = [None] * len(ids)
    if "token_type_ids" in encoded:
        types = [np.asarray(row, dtype=np.int8) for row in encoded["token_type_ids"]]
    examples = tuple(Example(i, t, float(label)) for i, t, label in zip(ids, types, labels, strict=True))
    return Tokens(examples, np.asarray([len(row) for row in ids], dtype=np.int32))
