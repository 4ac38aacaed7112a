"""Search space -> Optuna: a study's database, its sampler and its distributions.

Optuna's database is the one ledger of a study: which trials exist, how they went, what was drawn.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from tunery.cluster.messages import Ending
from tunery.spec import Choice, IntUniform, LogUniform, Range, SearchSpec, Uniform

Mode = Literal["min", "max"]
MODES: Mapping[str, Mode] = {"maximise": "max", "minimise": "min"}
"""A task's direction in Tune's words."""
DIRECTIONS: Mapping[Mode, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}

SQLITE = "sqlite:///"

ENDINGS: Mapping[TrialState, Ending] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def ended(study: optuna.Study) -> list[tuple[int, Ending, dict[str, Any]]]:
    """The trials that have ended: number, how, draw."""
    trials = study.get_trials(deepcopy=False)
    return [(trial.number, ENDINGS[trial.state], trial.params) for trial in trials if trial.state in ENDINGS]


def distribution(drawn: Range) -> BaseDistribution:
    """One range of the spec as Optuna's distribution."""
    match drawn:
        case Choice():
            return CategoricalDistribution(drawn.choice)
        case Uniform():
            return FloatDistribution(*drawn.uniform)
        case LogUniform():
            return FloatDistribution(*drawn.log_uniform, log=True)
        case IntUniform():
            return IntDistribution(*drawn.int_uniform)
    raise AssertionError(f"a range without a distribution: {drawn!r}")


def create_ledger(url: str) -> None:
    """Create Optuna's tables where there are none: two studies doing so at once would collide."""
    _storage(url)


def _storage(url: str) -> optuna.storages.RDBStorage:
    if not url.startswith(SQLITE):
        return optuna.storages.RDBStorage(url)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(url.removeprefix(SQLITE), timeout=60, check_same_thread=False)
        # A trial is some fifteen transactions. With a write-ahead log they wait for no disk: they outlive any process,
        # and a loss of power may undo the last of them, as it may the last lines of the spool.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return optuna.storages.RDBStorage(url, engine_kwargs={"creator": connect})


def open_study(search: SearchSpec, *, study_name: str, url: str, mode: Mode, first: Mapping[str, Any]) -> optuna.Study:
    """Create or load the Optuna study `study_name` in the database at `url`.

    `first` is drawn first (the spec's own values, so that every sweep contains its baseline).
    """
    study = optuna.create_study(
        storage=_storage(url), study_name=study_name, direction=DIRECTIONS[mode], load_if_exists=True
    )
    known = len(study.get_trials(deepcopy=False))
    # A resumed study must not repeat the first draws of its seed.
    study.sampler = _sampler(search, seed=search.sampler.seed + known)
    if known == 0 and first:
        study.enqueue_trial(dict(first))
    return study


def _sampler(search: SearchSpec, *, seed: int) -> optuna.samplers.BaseSampler:
    if search.sampler.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # constant_liar: trials run side by side, and must not all be drawn at the same place.
        # multivariate: correlations between the drawn paths count (arXiv 2304.11127).
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=min(10, max(4, search.trials // 3)), multivariate=True, constant_liar=True
        )
