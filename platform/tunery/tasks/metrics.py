"""The tasks' metrics: those of GLUE by scikit-learn and scipy, as its official scripts; those of texts in `written`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics

from tunery.tasks.task import EvalSplit, Task

Array = NDArray[np.float32]
Scored = tuple[Array, NDArray[np.generic]]
"""N rows, C classes: logits [N, C] (C = 1 for a regression) and labels [N]."""
Written = tuple[Sequence[str], Sequence[str]]
"""N answers, and what they should have been."""


def score(task: Task, evaluations: Mapping[str, Scored | Written]) -> dict[str, float]:
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
        outputs, expected = evaluations[split.name]
        assert len(expected) > 0, f"{task.name}: {split.name} is empty"
        assert len(outputs) == len(expected), (len(outputs), len(expected))
        if task.kind == "generation":
            result |= _of_texts(task, split, [str(text) for text in outputs], [str(text) for text in expected])
        else:
            result |= _of_logits(task, split, np.asarray(outputs), np.asarray(expected))
    return result


def _of_logits(task: Task, split: EvalSplit, logits_NC: Array, labels_N: NDArray[np.generic]) -> dict[str, float]:
    assert logits_NC.ndim == 2, logits_NC.shape
    predictions_N = logits_NC[:, 0] if task.kind == "regression" else logits_NC.argmax(axis=1)
    found = {}
    for metric in split.metrics:
        formula = metric.partition("_")[0]
        given = logits_NC if formula in _OF_LOGITS else predictions_N
        found[metric] = float((_OF_LOGITS | _FORMULAS)[formula](labels_N, given))
    return found


def _of_texts(task: Task, split: EvalSplit, answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    # Imported here: its libraries are loaded for tasks with answers only.
    from tunery.tasks.written import written

    scores = written(answers, expected, language=task.language)
    return {metric: scores[metric.partition("_")[0]] for metric in split.metrics}


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


def _auc(labels_N: NDArray[np.generic], logits_NC: Array) -> float:
    """Of two classes, the second one's; 0.5 where the rows have one class only."""
    if len(np.unique(labels_N)) < 2:
        return 0.5
    return float(sklearn_metrics.roc_auc_score(labels_N, logits_NC[:, 1] - logits_NC[:, 0]))


_OF_LOGITS: dict[str, Callable[..., float]] = {"auc": _auc}
_FORMULAS: dict[str, Callable[..., float]] = {
    "accuracy": sklearn_metrics.accuracy_score,
    # Label 1 is the positive class, as GLUE has it; a class never predicted counts as 0 without a warning.
    "f1": lambda labels, predictions: sklearn_metrics.f1_score(labels, predictions, zero_division=0.0),
    "precision": lambda labels, predictions: sklearn_metrics.precision_score(labels, predictions, zero_division=0.0),
    "recall": lambda labels, predictions: sklearn_metrics.recall_score(labels, predictions, zero_division=0.0),
    "mcc": sklearn_metrics.matthews_corrcoef,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
