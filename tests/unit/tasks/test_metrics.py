from __future__ import annotations

import numpy as np
import pytest

from tunery import tasks
from tunery.tasks.metrics import objective, score


def logits_for(predictions: list[int], classes: int) -> np.ndarray:
    logits_NC = np.full((len(predictions), classes), -1.0, dtype=np.float32)
    logits_NC[np.arange(len(predictions)), predictions] = 1.0
    return logits_NC


def test_classification_metrics_are_the_textbook_ones() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    predictions = [1, 1, 0, 0, 0, 1, 1, 0]  # tp 3, fn 1, tn 3, fp 1
    metrics = score(tasks.get("cola"), {"validation": (logits_for(predictions, 2), labels)})
    assert metrics == pytest.approx({"mcc": 0.5, "accuracy": 0.75, "f1": 0.75, "precision": 0.75, "recall": 0.75})
    assert objective(tasks.get("cola"), metrics) == pytest.approx(0.5)


def test_the_objective_of_two_metrics_is_their_mean() -> None:
    labels = np.array([1, 1, 1, 0])
    metrics = score(tasks.get("mrpc"), {"validation": (logits_for([1, 1, 0, 0], 2), labels)})
    assert metrics == pytest.approx({"accuracy": 0.75, "f1": 0.8})
    assert objective(tasks.get("mrpc"), metrics) == pytest.approx(0.775)


def test_a_regression_is_scored_on_its_values_not_on_classes() -> None:
    labels = np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    logits = np.array([[0.1], [0.9], [2.5], [2.4], [4.0]], dtype=np.float32)
    metrics = score(tasks.get("stsb"), {"validation": (logits, labels)})
    assert metrics["pearson"] == pytest.approx(float(np.corrcoef(labels, logits[:, 0])[0, 1]))
    assert metrics["spearman"] == pytest.approx(0.9)


@pytest.mark.parametrize(("name", "metric"), [("cola", "mcc"), ("stsb", "pearson"), ("stsb", "spearman")])
def test_a_constant_prediction_scores_zero_and_not_nan(name: str, metric: str) -> None:
    task = tasks.get(name)
    logits = np.zeros((6, 1 if task.kind == "regression" else 2), dtype=np.float32)
    labels = np.array([0, 1, 0, 1, 1, 0]) if task.labels else np.array([0.0, 1, 2, 3, 4, 5])
    assert score(task, {"validation": (logits, labels)})[metric] == 0.0


def test_mnli_has_two_accuracies_and_can_do_without_the_second() -> None:
    task = tasks.get("mnli")
    matched = (logits_for([0, 1, 2], 3), np.array([0, 1, 1]))
    mismatched = (logits_for([0, 1, 2], 3), np.array([0, 1, 2]))
    both = score(task, {"validation_matched": matched, "validation_mismatched": mismatched})
    assert both == pytest.approx({"accuracy": 2 / 3, "accuracy_mm": 1.0})
    one = score(task, {"validation_matched": matched})
    assert set(one) == {"accuracy"}
    assert objective(task, one) == objective(task, both) == pytest.approx(2 / 3)


def test_a_missing_split_is_an_error_and_not_a_silent_zero() -> None:
    with pytest.raises(AssertionError, match="validation"):
        score(tasks.get("cola"), {})
    with pytest.raises(AssertionError, match="no split"):
        score(tasks.get("cola"), {"test": (logits_for([0], 2), np.array([0]))})
