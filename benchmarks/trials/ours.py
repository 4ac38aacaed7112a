"""Our arm: the engine's pack, driven directly, one seat a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from benchmarks.trials.measure import Evaluate, SeedResult, Stopwatch, judge
from benchmarks.trials.workload import Workload
from tuners.engine import Base, BaseSpec, Evaluation, HeadSpec, Pack, SeatSpec, keep_freed_memory, native_dtype
from tunery import tasks
from tunery.tasks import metrics as task_metrics


def load(workload: Workload, dtype: Literal["float32", "bfloat16", "auto"] = "float32") -> Base:
    """The model, frozen or to be trained; auto is the platform's choice of the dtype."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    chosen = native_dtype(device) if dtype == "auto" else dtype
    tuner = workload.tuner
    spec = BaseSpec(workload.model, quantisation=tuner.quantisation, dtype=chosen, trained=tuner.trains_base)
    return Base.load(spec, device)


def train(
    base: Base, workload: Workload, seeds: Sequence[int], watch: Stopwatch, *, limit: int | None, evaluate: Evaluate
) -> list[SeedResult]:
    """Train all seeds at once in one pack: one seed where the base is trained. Each stops after `limit` steps."""
    task = tasks.get(workload.task)
    pack = Pack(base)
    for seed in seeds:
        pack.join(
            SeatSpec(
                name=str(seed),
                tuner=workload.tuner,
                train=workload.train.model_copy(update={"seed": seed}),
                head=HeadSpec(task.kind, task.labels),
                train_set=workload.train_set,
                eval_sets=workload.eval_sets,
            )
        )
    trainable = {seed: pack.progress(str(seed)).trainable for seed in seeds}
    evaluations = _loop(pack, workload.task, watch, limit=limit, evaluate=evaluate)
    return [judge(task, seed, evaluations[str(seed)], trainable[seed]) for seed in seeds]


def _loop(
    pack: Pack, task_name: str, watch: Stopwatch, *, limit: int | None, evaluate: Evaluate
) -> dict[str, list[dict[str, float]]]:
    evaluations: dict[str, list[dict[str, float]]] = {name: [] for name in pack.seats}
    steps = 0
    watch.start()
    while pack.seats:
        reports = pack.step()
        watch.lap(sum(report.examples for report in reports.values()))
        steps += 1
        diverged = {name: report.diverged for name, report in reports.items() if report.diverged}
        assert not diverged, f"seats diverged: {diverged}"
        ended = {name for name in pack.seats if pack.progress(name).finished or steps == limit}
        due = set() if evaluate == "never" else set(ended)
        if evaluate == "epochs":
            due |= {name for name in pack.seats if pack.progress(name).evaluation_due}
        if due:
            with watch.pause():
                for name, splits in pack.evaluate(sorted(due)).items():
                    evaluations[name].append(score(task_name, splits))
        for name in ended:
            pack.leave(name)
    return evaluations


def score(task_name: str, splits: Mapping[str, Evaluation]) -> dict[str, float]:
    """A task's metrics of what a seat put out."""
    scored = {split: (evaluation.logits, evaluation.labels) for split, evaluation in splits.items()}
    task = tasks.get(task_name)
    return {**task_metrics.score(task, scored), "loss": splits[task.eval_splits[0].name].loss}
