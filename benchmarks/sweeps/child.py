"""One process of an arm: `python -m benchmarks.sweeps.child KIND SWEEP.json DRAWS.json OUT.json NUMBER...`.

Trains the trials of these numbers one after another and writes what came of them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import report
from benchmarks.sweeps.outcome import Trial
from benchmarks.sweeps.sweep import Draw, Sweep
from benchmarks.trials.measure import SeedResult, Stopwatch

Draws = Sequence[Draw]


def main(arguments: Sequence[str]) -> None:
    """Run one process of an arm."""
    kind, sweep_file, draws_file, out, *numbers = arguments
    sweep = Sweep.model_validate_json(Path(sweep_file).read_bytes())
    draws: Draws = json.loads(Path(draws_file).read_bytes())
    trials = KINDS[kind](sweep, {int(number): draws[int(number)] for number in numbers})
    Path(out).write_text(json.dumps([asdict(trial) for trial in trials]))


def padded(sweep: Sweep, draws: Mapping[int, Draw]) -> list[Trial]:
    """HF Trainer + PEFT, every input padded to the longest that is allowed."""
    return [hf_trial(sweep, number, draw, "padded") for number, draw in draws.items()]


def grouped(sweep: Sweep, draws: Mapping[int, Draw]) -> list[Trial]:
    """The same, in batches of similar lengths, padded to the longest of each."""
    return [hf_trial(sweep, number, draw, "grouped") for number, draw in draws.items()]


def bare(sweep: Sweep, draws: Mapping[int, Draw]) -> list[Trial]:
    """The engine in a plain loop: one base, one seat at a time; no Ray, no tracking, no checkpoints."""
    set_threads()
    from benchmarks.trials import ours

    trials = []
    base = None
    for number, draw in draws.items():
        work = sweep.workload(draw)
        base = base or ours.load(work, sweep.dtype)
        began = time.time()
        (result,) = ours.train(base, work, [work.train.seed], Stopwatch(), limit=None, evaluate="epochs")
        trials.append(trial_of(number, result, began))
    return trials


def tune(sweep: Sweep, draws: Mapping[int, Draw]) -> list[Trial]:
    """Ray Tune with Optuna over `grouped`, a trial a core at a time."""
    from benchmarks.sweeps.ray_tune import run

    return run(sweep, draws)


def hf_trial(sweep: Sweep, number: int, draw: Draw, padding: str) -> Trial:
    """One trial by HF Trainer + PEFT."""
    report.quiet()
    set_threads()
    from benchmarks.trials import hf

    began = time.time()
    work = sweep.workload(draw)
    kind = hf.PADDING[f"hf-{padding}"]
    result = hf.train(work, work.train.seed, kind, Stopwatch(), limit=None, evaluate="epochs")
    return trial_of(number, result, began)


def trial_of(number: int, result: SeedResult, began: float) -> Trial:
    """A trial that has just ended."""
    return Trial(number, result.objective, result.metrics.get("loss"), began, time.time())


def set_threads() -> None:
    """torch's own number, too: not every build reads the environment."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


KINDS: Mapping[str, Callable[[Sweep, Mapping[int, Draw]], list[Trial]]] = {
    "padded": padded,
    "grouped": grouped,
    "bare": bare,
    "tune": tune,
}

if __name__ == "__main__":
    main(sys.argv[1:])
