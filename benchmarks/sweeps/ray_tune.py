"""The rival with a scheduler: Ray Tune and Optuna over HF Trainer + PEFT, length-grouped.

At its best: a trial a core at a time with one thread each, and actors that are used again, so that the imports are
paid once a core and not once a trial.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from benchmarks.sweeps.child import hf_trial
from benchmarks.sweeps.outcome import Trial, trials_of
from benchmarks.sweeps.sweep import Draw, Sweep
from tunery.cluster.draws import MODES
from tunery.cluster.spaces import distributions
from tunery.tasks import get


def run(sweep: Sweep, draws: Mapping[int, Draw]) -> list[Trial]:
    """The whole sweep; Optuna is told which points to take, so that every arm trains the same."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    ray.init(
        address="local",
        num_cpus=sweep.cores,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    space = distributions(sweep.study.search)

    def train(config: dict[str, Any]) -> None:
        draw = {path: config[path] for path in space}
        number = next(number for number, known in draws.items() if known == draw)
        tune.report(asdict(hf_trial(sweep, number, draw, "grouped")))

    mode = MODES[get(sweep.task).direction]
    points = [dict(draw) for draw in draws.values()]
    results = tune.Tuner(
        tune.with_resources(train, {"CPU": 1}),
        tune_config=tune.TuneConfig(
            metric="objective",
            mode=mode,
            num_samples=len(draws),
            max_concurrent_trials=sweep.cores,
            search_alg=OptunaSearch(space=space, metric="objective", mode=mode, points_to_evaluate=points),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=os.environ["RIVAL_STORAGE"], verbose=0),
    ).fit()
    ray.shutdown()
    if results.num_errors:
        raise SystemExit(f"{results.num_errors} trials failed, the first with: {results.errors[0]}")
    ended = [results[index].metrics or {} for index in range(len(results))]
    trials = trials_of([{name: metrics[name] for name in Trial.__dataclass_fields__} for metrics in ended])
    return sorted(trials, key=lambda trial: trial.number)
