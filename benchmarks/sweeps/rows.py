"""A task's rows, bounded, written once for all arms of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from storage.datasets import Fields, Row, from_rows, read_path
from storage.errors import MissingSplitError
from storage.models import model_folder
from tunery import tasks


@dataclass(frozen=True)
class Bounds:
    """Which of a task's rows are used; a seeded sample."""

    train: int | None
    evaluation: int | None
    """Rows of each evaluation split."""
    shortest: int
    """Tokens that a row has at least."""
    longest: int
    """Tokens after which an input is cut."""


@dataclass(frozen=True)
class Written:
    """What was written."""

    train: int
    evaluation: int
    mean_tokens: float
    """Of a training row, special tokens included, after the cut."""


def write(task_name: str, source: Path, target: Path, *, model: str, bounds: Bounds) -> Written:
    """Write `target`/<task's folder>/<split>.parquet."""
    task = tasks.get(task_name)
    fields = Fields(text=task.text, text_pair=task.text_pair, label=task.label, labels=task.labels)
    tokenizer = AutoTokenizer.from_pretrained(model_folder(model))
    folder = target / task.folder
    folder.mkdir(parents=True, exist_ok=True)

    def tokens(rows: Sequence[Row]) -> list[int]:
        texts, pairs = [row.text for row in rows], [row.text_pair or "" for row in rows] if task.text_pair else None
        encoded = tokenizer(texts, pairs, truncation=True, max_length=bounds.longest)
        return [len(ids) for ids in encoded["input_ids"]]

    def write_split(split: str, limit: int | None) -> Sequence[Row]:
        rows = read_path(source, task.folder, split, fields).rows
        if bounds.shortest:
            rows = [row for row, count in zip(rows, tokens(rows), strict=True) if count >= bounds.shortest]
        kept = from_rows(rows, f"{task.folder}/{split} with rows of {bounds.shortest} tokens or more", limit=limit).rows
        columns = {task.text: [row.text for row in kept]}
        if task.text_pair:
            columns[task.text_pair] = [row.text_pair or "" for row in kept]
        pq.write_table(pa.table({**columns, task.label: [row.label for row in kept]}), folder / f"{split}.parquet")
        return kept

    train = write_split(task.train_split, bounds.train)
    evaluation = 0
    for split in task.eval_splits:
        try:
            evaluation += len(write_split(split.name, bounds.evaluation))
        except MissingSplitError:
            if not split.optional:
                raise
    return Written(len(train), evaluation, float(np.mean(tokens(train))))
