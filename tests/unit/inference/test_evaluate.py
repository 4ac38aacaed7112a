from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.datasets import Rows, data_fingerprint, from_rows
from tunery import tasks
from tunery.errors import InputError
from tunery.inference.evaluate import evaluate
from tunery.inference.predictor import Predictor
from tunery.rows import Place, evaluation_sets
from tunery.tasks import metrics

TEXTS = ["the cat sat", "no", "john gave him a present", "she is smart", "he", "a dog", "mat on the cat", "i think"]


def rows(labels: list[float], pairs: bool = False) -> Rows:
    return from_rows([(t, "a dog" if pairs else None, y) for t, y in zip(TEXTS, labels, strict=True)], "test")


def test_the_metrics_are_those_of_the_predictions(adapter: Path) -> None:
    predictor, task = Predictor.load(adapter), tasks.get("acceptability")
    own = predictor.logits([(text, None) for text in TEXTS]).argmax(axis=1)
    perfect = evaluate(predictor, task, {"validation": rows(own.astype(float).tolist())})
    wrong = evaluate(predictor, task, {"validation": rows((1.0 - own).tolist())})
    assert len(set(own.tolist())) == 2
    assert perfect.objective == pytest.approx(1.0)
    assert wrong.objective == pytest.approx(-1.0)
    assert perfect.objective_name == task.objective_name
    assert perfect.examples == len(TEXTS)
    assert perfect.data_fingerprint != wrong.data_fingerprint
    fingerprint = rows(own.astype(float).tolist()).fingerprint
    assert perfect.data_fingerprint == data_fingerprint({"validation": fingerprint})


def test_a_regression_is_measured_by_its_values(value_adapter: Path) -> None:
    predictor = Predictor.load(value_adapter)
    values = predictor.logits([(text, "a dog") for text in TEXTS])[:, 0]
    outcome = evaluate(predictor, tasks.get("stsb"), {"validation": rows(values.astype(float).tolist(), pairs=True)})
    assert outcome.metrics == pytest.approx({"pearson": 1.0, "spearman": 1.0})


def test_a_model_of_other_labels_is_not_measured(adapter: Path) -> None:
    with pytest.raises(InputError, match=r"which mnli .* is not"):
        evaluate(Predictor.load(adapter), tasks.get("mnli"), {})


def test_embedded_rows_are_generated_and_bounded() -> None:
    sets = evaluation_sets(tasks.get("acceptability"), Place("embedded"), limit=20)
    assert {split: len(each.rows) for split, each in sets.items()} == {"validation": 20}


def test_rows_under_a_folder_and_an_optional_split_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / tasks.get("mnli").folder
    folder.mkdir(parents=True)
    lines = '{"premise": "a cat", "hypothesis": "a dog", "label": 2}\n' * 3
    (folder / "validation_matched.jsonl").write_text(lines)
    assert list(evaluation_sets(tasks.get("mnli"), Place("path", tmp_path))) == ["validation_matched"]


def test_a_task_without_a_source_asks_for_one() -> None:
    own = replace(tasks.get("cola"), hub=None)
    with pytest.raises(InputError, match="--data"):
        Place.at(None, own)


def test_logits_of_one_class_count_as_values() -> None:
    outcome = metrics.score(tasks.get("stsb"), {"validation": (np.ones((3, 1), np.float32), np.array([1.0, 2.0, 3.0]))})
    assert outcome == {"pearson": 0.0, "spearman": 0.0}
