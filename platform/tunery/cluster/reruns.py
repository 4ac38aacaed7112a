"""The best configurations of a study, queued to be trained again with other seeds."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tunery.cluster.draws import ENDINGS, ended
from tunery.cluster.messages import ORIGIN, RERUN_OF
from tunery.spec import RerunSpec

SEED = "train.seed"
_LARGEST = 2**32 - 1


def rerun_of(trial: FrozenTrial) -> int | None:
    """Number of the trial that this one repeats; None where it is the search's own."""
    number: int | None = trial.user_attrs.get(RERUN_OF)
    return number


def searched(study: optuna.Study) -> list[FrozenTrial]:
    """The search's own trials that have ended."""
    return [trial for trial in ended(study) if rerun_of(trial) is None]


def left(study: optuna.Study) -> int:
    """Queued or running reruns."""
    trials = study.get_trials(deepcopy=False)
    return sum(rerun_of(trial) is not None and trial.state not in ENDINGS for trial in trials)


def with_seed(distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """A space with the seed in it, as a rerun has it."""
    return {**distributions, SEED: IntDistribution(0, _LARGEST)}


def queue(study: optuna.Study, spec: RerunSpec, *, seed: int) -> None:
    """Queue what is not there of the reruns; `seed` is the one the search trained with.

    Which they are follows from the ledger and the seed alone, so that a study that goes on finds the same.
    """
    reruns = [trial for trial in study.get_trials(deepcopy=False) if rerun_of(trial) is not None]
    there = {(rerun_of(trial), trial.system_attrs["fixed_params"][SEED]) for trial in reruns}
    for new in seeds(seed, spec.seeds):
        for trial in best(study, spec.top):
            if (trial.number, new) not in there:
                origin = {ORIGIN: f"trial {trial.number}", RERUN_OF: trial.number}
                study.enqueue_trial({**trial.params, SEED: new}, user_attrs=origin)
    # Everything is queued: nothing is left for a sampler to choose, and a model would be fitted in vain.
    study.sampler = optuna.samplers.RandomSampler()


def best(study: optuna.Study, top: int) -> list[FrozenTrial]:
    """The search's best trials of different configurations that ran to their end, best first."""
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    finished = [trial for trial in searched(study) if trial.state == TrialState.COMPLETE]
    distinct: dict[str, FrozenTrial] = {}
    for trial in sorted(finished, key=lambda trial: (sign * (trial.value or 0.0), trial.number)):
        distinct.setdefault(repr(sorted(trial.params.items())), trial)
    return list(distinct.values())[:top]


def seeds(own: int, count: int) -> list[int]:
    """Seeds other than `own`; every configuration gets the same ones, so that none has the luckier."""
    drawn = Random(own).sample(range(_LARGEST + 1), count + 1)
    return [seed for seed in drawn if seed != own][:count]
