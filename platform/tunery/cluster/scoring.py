"""What an evaluation says of a seat: the task's scores, and the report that its trial is judged by."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.tokens import TokenTable
from tuners.engine import Evaluation, Progress
from tunery.cluster.messages import Report, StudyData
from tunery.cluster.reports import Counted
from tunery.tasks import metrics
from tunery.tasks.prompting import answer_text


@dataclass(frozen=True)
class Evaluated:
    """One evaluation of a seat, with what was measured up to it."""

    results: Mapping[str, Evaluation]
    """Split -> outputs."""
    progress: Progress
    epochs: int
    counted: Counted
    """Since the seat's last report."""
    peak: int
    """Bytes of memory, the most that was taken."""
    seconds: float
    """Of the evaluation, which the seat shared with the others that were due."""


def report(data: StudyData, earlier: Sequence[Report], found: Evaluated) -> Report:
    """The seat's next report. Its objective is the best so far: what a trial is worth does not fall again."""
    task, progress, counted = data.task, found.progress, found.counted
    scores = metrics.score(task, {split: _outcome(data, split, each) for split, each in found.results.items()})
    objective = metrics.objective(task, scores)
    sign = 1.0 if task.direction == "maximise" else -1.0
    before = earlier[-1].objective if earlier else None
    best = before is None or sign * objective > sign * before
    return Report(
        index=len(earlier),
        step=progress.step,
        steps=progress.steps,
        epoch=progress.epoch,
        epochs=found.epochs,
        objective=objective if before is None or best else before,
        best=best,
        final=progress.finished,
        metrics={
            **scores,
            "objective": objective,
            "loss": next(iter(found.results.values())).loss,
            "train_loss": counted.loss,
            "examples_per_s": counted.examples_per_s,
            "tokens_per_s": counted.tokens_per_s,
            "evaluated_per_s": sum(len(each.labels) for each in found.results.values()) / found.seconds,
            "peak_memory_bytes": float(found.peak),
            "trainable_parameters": float(progress.trainable),
            "total_parameters": float(progress.total),
            "epoch": progress.epoch,
        },
        at_ms=int(time.time() * 1000),
    )


def told(report: Report) -> str:
    """A line for the trial's log."""
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in report.metrics.items())
    mark = " (best so far)" if report.best else ""
    return f"step {report.step} of {report.steps}, epoch {report.epoch:g}: {numbers}{mark}"


def _outcome(data: StudyData, split: str, found: Evaluation) -> metrics.Scored | metrics.Written:
    if data.task.kind != "generation":
        return found.logits, found.labels
    tokenizer = _tokenizer(data.tokenizer)
    return [answer_text(tokenizer, ids.tolist()) for ids in found.answers], TokenTable(data.evals[split]).answers


@functools.cache
def _tokenizer(folder: Path) -> Any:
    # Imported here: what has labels needs none.
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
