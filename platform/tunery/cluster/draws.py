"""A study's database: opening it, what it begins with, what has ended in it.

Optuna's database is the one ledger of a study: which trials exist, how they went, what was drawn.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from tunery.cluster.messages import ORIGIN, Ending, Value
from tunery.cluster.spaces import sampler
from tunery.spec import SearchSpec

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


@dataclass(frozen=True)
class First:
    """Values that a study begins with; the paths it leaves out are the sampler's."""

    values: Mapping[str, Value]
    origin: str
    """Where they are from, for people."""


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended; `ENDINGS` says how."""
    return study.get_trials(deepcopy=False, states=tuple(ENDINGS))


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


def open_study(search: SearchSpec, *, study_name: str, url: str, mode: Mode) -> optuna.Study:
    """Create or load the Optuna study `study_name` in the database at `url`."""
    study = optuna.create_study(
        storage=_storage(url), study_name=study_name, direction=DIRECTIONS[mode], load_if_exists=True
    )
    study.sampler = sampler(search, known=len(study.get_trials(deepcopy=False)))
    return study


def untouched(study: optuna.Study) -> bool:
    """Whether no trial has begun."""
    return all(trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False))


def queue(study: optuna.Study, search: SearchSpec, firsts: Iterable[First]) -> None:
    """Have the study begin with these values, in this order, each once; what is queued already stays."""
    for first in firsts:
        # A cell of a grid is whole, or it would be drawn twice.
        whole = first.values.keys() == search.space.keys()
        if first.values and (whole or search.sampler.name != "grid"):
            study.enqueue_trial(dict(first.values), user_attrs={ORIGIN: first.origin}, skip_if_exists=True)
