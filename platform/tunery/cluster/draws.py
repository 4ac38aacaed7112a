"""Search space -> Optuna: a study's database, its sampler and its distributions.

Optuna's database is the one ledger of a study: which trials exist, how they went, what was drawn.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tunery.cluster.messages import ORIGIN, Ending, Value
from tunery.spec import Choice, IntUniform, LogUniform, Range, SearchSpec, Uniform

Mode = Literal["min", "max"]
MODES: Mapping[str, Mode] = {"maximise": "max", "minimise": "min"}
"""A task's direction in Tune's words."""
DIRECTIONS: Mapping[Mode, Literal["minimize", "maximize"]] = {"min": "minimize", "max": "maximize"}

ENDINGS: Mapping[TrialState, Ending] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_FIXED = "fixed_params"
"""Where Optuna keeps what a queued trial will draw."""


@dataclass(frozen=True)
class First:
    """Values that a study begins with; the paths it leaves out are the sampler's."""

    values: Mapping[str, Value]
    origin: str
    """Where they are from, for people."""


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended; `ENDINGS` says how."""
    return study.get_trials(deepcopy=False, states=tuple(ENDINGS))


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


def distributions(search: SearchSpec) -> dict[str, BaseDistribution]:
    """The whole space, by path."""
    return {path: distribution(drawn) for path, drawn in search.space.items()}


def create_ledger(url: str) -> None:
    """Create Optuna's tables where there are none: two studies doing so at once would collide."""
    _storage(url)


def _storage(url: str) -> optuna.storages.RDBStorage:
    engine = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=engine)


def open_study(search: SearchSpec, *, study_name: str, url: str, mode: Mode) -> optuna.Study:
    """Create or load the Optuna study `study_name` in the database at `url`."""
    study = optuna.create_study(
        storage=_storage(url), study_name=study_name, direction=DIRECTIONS[mode], load_if_exists=True
    )
    # A resumed study must not repeat the first draws of its seed.
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


def sampler(search: SearchSpec, *, known: int) -> optuna.samplers.BaseSampler:
    seed = search.sampler.seed + known
    startup = min(10, max(4, search.trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler.name:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "grid":
                return Grid(search.space, seed=search.sampler.seed)
            case "gp":
                # Loads torch when it fits its first model, and not before. Running trials count by themselves.
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
            case "tpe":
                # constant_liar: trials run side by side, and must not all be drawn at the same place.
                # multivariate: correlations between the drawn paths count (arXiv 2304.11127).
                return optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
                )


class Grid(optuna.samplers.BaseSampler):
    """Every combination once, in an order drawn with the seed, after what is queued.

    Optuna's own GridSampler ends the study when the grid is through, which raises where trials are asked for and told
    one by one, and draws again what was queued.
    """

    def __init__(self, space: Mapping[str, Range], *, seed: int) -> None:
        self._distributions = {path: distribution(drawn) for path, drawn in space.items()}
        axes = [_listed(path, drawn) for path, drawn in space.items()]
        self._cells = [dict(zip(space, cell, strict=True)) for cell in itertools.product(*axes)]
        Random(seed).shuffle(self._cells)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The first combination that no other trial has."""
        del search_space
        others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        taken = {self._key(other.params or other.system_attrs.get(_FIXED, {})) for other in others}
        return next((cell for cell in self._cells if self._key(cell) not in taken), self._cells[0])

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        del study, trial, param_distribution
        raise AssertionError(f"{param_name} is not in the grid")

    def _key(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        # repr: 1, 1.0 and true are different values of a choice.
        return tuple(repr(values.get(path)) for path in self._distributions)


def _listed(path: str, drawn: Range) -> Sequence[Value]:
    values = drawn.listed()
    assert values is not None, f"the check of the spec refuses a grid over {path}"
    return values
