"""The arms of a benchmark and how one is run: in processes of its own, started together."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from typing import Literal

from benchmarks import report
from benchmarks.trials.measure import ArmResult, Evaluate, SeedResult, Stopwatch, together
from benchmarks.trials.workload import Workload

START_LIMIT_S = 600.0
"""Seconds after which an arm whose processes did not all come up is given up."""


@dataclass(frozen=True)
class Arm:
    """Who trains, and on how much of the machine."""

    name: str
    trainer: Literal["hf-padded", "hf-dynamic", "hf-grouped", "ours"]
    processes: int
    threads: int
    """Of each process."""
    packed: bool = False
    """Whether a process trains its seeds at once, where they can share a base; otherwise one after another."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen base, in the engine; what is trained is float32 either way."""


@dataclass(frozen=True)
class Job:
    """One process's part of an arm."""

    arm: Arm
    workload: Workload
    seeds: tuple[int, ...]
    limit: int | None
    """Steps a trial after which training stops; None: all."""
    evaluate: Evaluate


def known(cores: int) -> dict[str, Arm]:
    """Every arm by name. `per-core` arms run one process a core with one thread each, the others one on all cores."""
    arms = (
        Arm("hf-padded", "hf-padded", 1, cores),
        Arm("hf-dynamic", "hf-dynamic", 1, cores),
        Arm("hf-grouped", "hf-grouped", 1, cores),
        Arm("hf-grouped-per-core", "hf-grouped", cores, 1),
        Arm("ours-one", "ours", 1, cores),
        Arm("ours-packed", "ours", 1, cores, packed=True),
        Arm("ours-per-core", "ours", cores, 1, packed=True),
        Arm("ours-per-core-bf16", "ours", cores, 1, packed=True, dtype="bfloat16"),
    )
    return {arm.name: arm for arm in arms}


def run(arm: Arm, workload: Workload, seeds: Sequence[int], *, limit: int | None, evaluate: Evaluate) -> ArmResult:
    """Run one arm. Its seeds are dealt out to its processes; more processes than seeds are not started."""
    processes = min(arm.processes, len(seeds))
    jobs = [Job(arm, workload, tuple(seeds[i::processes]), limit, evaluate) for i in range(processes)]
    context = multiprocessing.get_context("spawn")
    # The children read it while they import torch; set_num_threads alone comes too late for some libraries.
    os.environ["OMP_NUM_THREADS"] = str(arm.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    barrier = context.Barrier(processes)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_meet_at, initargs=(barrier,)) as pool:
        parts = list(pool.map(_work, jobs))
    result = together(arm.name, parts)
    return replace(result, seeds=tuple(sorted(result.seeds, key=lambda seed: seeds.index(seed.seed))))


_barrier: Barrier | None = None


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _work(job: Job) -> ArmResult:
    report.quiet()
    import torch

    from benchmarks.trials import hf, ours

    torch.set_num_threads(job.arm.threads)
    # Who trains every weight has a pack to itself.
    packed = job.arm.packed and not job.workload.tuner.trains_base
    groups = [job.seeds] if packed else [(seed,) for seed in job.seeds]
    watches: list[Stopwatch] = []
    results: list[SeedResult] = []
    assert _barrier is not None
    _barrier.wait(START_LIMIT_S)
    for group in groups:
        watches.append(Stopwatch())
        if job.arm.trainer == "ours":
            base = ours.load(job.workload, job.arm.dtype)
            results += ours.train(base, job.workload, group, watches[-1], limit=job.limit, evaluate=job.evaluate)
        else:
            padding = hf.PADDING[job.arm.trainer]
            results.append(
                hf.train(job.workload, group[0], padding, watches[-1], limit=job.limit, evaluate=job.evaluate)
            )
    return ArmResult(
        arm=job.arm.name,
        examples_per_s=_rate(watches),
        train_s=sum(watch.seconds for watch in watches),
        eval_s=sum(watch.paused_s for watch in watches),
        steps=watches[-1].steps,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        seeds=tuple(results),
    )


def _rate(watches: Sequence[Stopwatch]) -> float:
    """Of groups that ran one after another: all examples over all seconds, the untimed first steps left out."""
    examples = sum(watch.timed_examples for watch in watches)
    return examples / sum(watch.timed_seconds for watch in watches)
