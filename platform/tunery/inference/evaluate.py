"""A model measured on a task's data, by the task's own metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage.datasets import Row, Rows, data_fingerprint
from tunery.errors import InputError
from tunery.inference.card import Score
from tunery.inference.generator import Generator
from tunery.inference.model import Model
from tunery.tasks import Task
from tunery.tasks.metrics import Scored, Written, objective, score


@dataclass(frozen=True)
class Evaluated:
    """What a model reached."""

    metrics: Mapping[str, float]
    objective: float
    """The task's objective."""
    objective_name: str
    data_fingerprint: str
    """Of the rows, all splits together."""
    examples: int
    seconds: float

    @property
    def score(self) -> Score:
        return Score(self.objective_name, self.objective, self.data_fingerprint)


def evaluate(model: Model, task: Task, sets: Mapping[str, Rows], *, batch_size: int = 32) -> Evaluated:
    """Measure on the rows of each split. InputError where the model was made for other labels."""
    card = model.card
    if (card.kind, card.labels) != (task.kind, task.labels):
        raise InputError(
            f"{model.name} was trained for {card.task} ({', '.join(card.labels) or card.kind}), "
            f"which {task.name} ({', '.join(task.labels) or task.kind}) is not"
        )
    began = time.monotonic()
    outcomes = {split: _outcome(model, rows.rows, batch_size) for split, rows in sets.items()}
    seconds = time.monotonic() - began
    metrics = score(task, outcomes)
    fingerprint = data_fingerprint({split: rows.fingerprint for split, rows in sets.items()})
    examples = sum(len(rows.rows) for rows in sets.values())
    return Evaluated(metrics, objective(task, metrics), task.objective_name, fingerprint, examples, seconds)


def _outcome(model: Model, rows: Sequence[Row], batch_size: int) -> Scored | Written:
    if isinstance(model, Generator):
        return list(model.answers([row.text for row in rows], batch_size)), [row.answer or "" for row in rows]
    labels = np.array([row.label for row in rows])
    return model.logits([(row.text, row.text_pair) for row in rows], batch_size), labels
