"""What every task keeps to: a new one is tested by being there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tuners.config import TrainConfig
from tunery import tasks
from tunery.tasks import Task
from tunery.tasks.metrics import objective, score


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest) -> Task:
    return tasks.get(request.param)


WORDS = {"en": ("cats", "dogs", "trains"), "zh": ("猫", "狗", "火车")}
TEXT = {"en": "we talked about {} for a long time today", "zh": "今天我们谈了很久关于{}的事情"}


def perfect(task: Task) -> dict[str, Any]:
    if task.kind == "generation":
        texts = [TEXT[task.language].format(word) for word in WORDS[task.language]]
        return {split.name: (texts, texts) for split in task.eval_splits}
    if task.kind == "regression":
        labels = np.linspace(0, 5, 11)
        logits = labels[:, None].astype(np.float32)
    else:
        classes = np.arange(11) % len(task.labels)
        labels, logits = classes.astype(np.float64), np.eye(len(task.labels), dtype=np.float32)[classes]
    return {split.name: (logits, labels) for split in task.eval_splits}


def test_names_and_columns_are_distinct(task: Task) -> None:
    columns = [column for column in (task.text, task.text_pair, task.label) if column is not None]
    assert len(set(columns)) == len(columns)
    splits = [task.train_split, *(split.name for split in task.eval_splits)]
    assert len(set(splits)) == len(splits)
    assert len(set(task.metrics)) == len(task.metrics)
    assert len(set(task.labels)) == len(task.labels)
    assert (task.kind == "classification") == (task.labels != ())
    assert (task.kind == "generation") == (task.prompt != "") == (task.template != "")


def test_it_can_be_found(task: Task) -> None:
    assert task.folder
    assert task.title
    assert task.tokens_per_example > 1
    splits = {task.train_split, *(split.name for split in task.eval_splits)}
    # Of rows that are nowhere but with their owner only what is held out is known.
    assert set(task.rows) == (splits if task.hub or task.generate else splits - {task.train_split})


def test_the_objective_is_computed_from_splits_that_are_always_there(task: Task) -> None:
    certain = {metric for split in task.eval_splits if not split.optional for metric in split.metrics}
    assert set(task.objective) <= certain
    assert task.objective


def test_perfect_predictions_score_best_and_all_metrics_are_there(task: Task) -> None:
    metrics = score(task, perfect(task))
    assert set(metrics) == set(task.metrics)
    assert objective(task, metrics) == pytest.approx(1.0)


def test_worse_predictions_score_worse_in_the_tasks_direction(task: Task) -> None:
    best = objective(task, score(task, perfect(task)))
    spoilt = {name: ([*outputs[1:], outputs[0]], labels) for name, (outputs, labels) in perfect(task).items()}
    worse = objective(task, score(task, spoilt))
    assert worse < best if task.direction == "maximise" else worse > best


def test_its_defaults_are_valid_training_settings(task: Task) -> None:
    fields = {path.removeprefix("train."): value for path, value in task.defaults.items()}
    assert all(path.startswith("train.") for path in task.defaults)
    TrainConfig.model_validate(fields)


def test_its_examples_have_as_many_texts_as_its_rows_and_mean_what_it_can_say(task: Task) -> None:
    assert len({(example.text, example.text_pair) for example in task.examples}) == len(task.examples) >= 4
    for example in task.examples:
        assert (example.text_pair is None) == (task.text_pair is None)
        if task.kind == "regression":
            assert isinstance(example.meant, float)
        else:
            assert isinstance(example.meant, str)
            assert example.meant.strip()
    if task.kind == "classification":
        assert {example.meant for example in task.examples} == set(task.labels)


def test_its_examples_are_in_its_language(task: Task) -> None:
    letters = "".join(example.text for example in task.examples)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in letters) == (task.language == "zh")
