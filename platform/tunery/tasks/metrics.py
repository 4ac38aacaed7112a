"""The tasks' metrics, by scikit-learn and scipy: what GLUE's official scripts call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tunery.tasks.task import Task

Array = NDArray[np.float32]
Scored = tuple[Array, NDArray[np.generic]]
"""N rows, C classes: logits [N, C] (C = 1 for a regression) and labels [N]."""


def score(task: Task, evaluations: Mapping[str, Scored]) -> dict[str, float]:
    """The metrics of every split that was evaluated, by the task's names.

    A correlation that is undefined, because all predictions are the same, counts as 0.0. AssertionError for
    an empty split, a split the task does not have, or a missing one that is not optional.
    """
    known = {split.name for split in task.eval_splits}
    assert set(evaluations) <= known, f"{task.name} has no split {sorted(set(evaluations) - known)}"
    result: dict[str, float] = {}
    for split in task.eval_splits:
        if split.name not in evaluations:
            assert split.optional, f"{task.name} was not evaluated on {split.name}"
            continue
        logits_NC, labels_N = evaluations[split.name]
        assert len(labels_N) > 0, f"{task.name}: {split.name} is empty"
        assert logits_NC.ndim == 2, logits_NC.shape
        assert len(logits_NC) == len(labels_N), (logits_NC.shape, labels_N.shape)
        predictions_N = logits_NC[:, 0] if task.kind == "regression" else logits_NC.argmax(axis=1)
        for metric in split.metrics:
            result[metric] = float(_FORMULAS[metric.partition("_")[0]](labels_N, predictions_N))
    return result


def objective(task: Task, metrics: Mapping[str, float]) -> float:
    """The number a study optimises, in the direction `task.direction`: the mean of the task's objective metrics."""
    return sum(metrics[name] for name in task.objective) / len(task.objective)


def _correlation(formula: Callable[..., tuple[float, float]]) -> Callable[[Array, Array], float]:
    def correlate(labels_N: Array, predictions_N: Array) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            value = formula(labels_N.astype(np.float64), predictions_N.astype(np.float64))[0]
        return float(value) if np.isfinite(value) else 0.0

    return correlate


_FORMULAS: Mapping[str, Callable[..., float]] = {
    "accuracy": sklearn_metrics.accuracy_score,
    # Label 1 is the positive class, as GLUE has it; a class never predicted counts as 0 without a warning.
    "f1": lambda labels, predictions: sklearn_metrics.f1_score(labels, predictions, zero_division=0.0),
    "precision": lambda labels, predictions: sklearn_metrics.precision_score(labels, predictions, zero_division=0.0),
    "recall": lambda labels, predictions: sklearn_metrics.recall_score(labels, predictions, zero_division=0.0),
    "mcc": sklearn_metrics.matthews_corrcoef,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
