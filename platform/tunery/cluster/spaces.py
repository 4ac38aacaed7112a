"""Search space -> Optuna: distributions, and the sampler that the spec names."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from tunery.cluster.messages import Value
from tunery.spec import Choice, IntUniform, LogUniform, Range, SearchSpec, Uniform

_FIXED = "fixed_params"
"""Where Optuna keeps what a queued trial will draw."""


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


def sampler(search: SearchSpec, *, known: int) -> BaseSampler:
    """The spec's sampler for a study that has so many trials: their draws are not repeated."""
    # A resumed study must not repeat the first draws of its seed.
    seed = search.sampler.seed + known
    startup = min(10, max(4, search.trials // 3))
    at_random = RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match search.sampler.name:
            case "grid":
                return Grid(search.space, seed=search.sampler.seed)
            case "random":
                return _distinct(search, [(at_random, _ATTEMPTS)])
            case "gp":
                # Loads torch when it fits its first model, and not before. Running trials count by themselves.
                gp = GPSampler(seed=seed, n_startup_trials=startup, independent_sampler=at_random)
                return _distinct(search, [(gp, 1), (at_random, _ATTEMPTS)])
            case "tpe":
                # 24 candidates: Optuna's default. One: a draw from among the good ones, not the most promising of them.
                # TPE's own first draws come from `seed`.
                elsewhere = RandomSampler(seed=seed + _ELSEWHERE)
                best, good = (Explored(_tpe(seed, startup, candidates), elsewhere) for candidates in (24, 1))
                return _distinct(search, [(best, 1), (good, _ATTEMPTS), (at_random, _ATTEMPTS)])


def _tpe(seed: int, startup: int, candidates: int) -> TPESampler:
    # constant_liar: trials run side by side, and must not all be drawn at the same place.
    # multivariate: correlations between the drawn paths count (arXiv 2304.11127).
    return TPESampler(
        seed=seed, n_startup_trials=startup, n_ei_candidates=candidates, multivariate=True, constant_liar=True
    )


class Explored(BaseSampler):
    """Another sampler, and for every third trial a draw at random.

    BOHB's random fraction (Falkner et al. 2018, arXiv 1807.01774): where a pruner stops trials by their first epochs,
    a model that learns from what was stopped would stay where the first epochs look well.
    """

    def __init__(self, model: BaseSampler, at_random: BaseSampler) -> None:
        self._model, self._at_random = model, at_random

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._model.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._model.after_trial(study, trial, state, values)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        return self._at_random if trial.number % _EXPLORED == _EXPLORED - 1 else self._model


_ELSEWHERE = 1 << 30
"""Between the seeds of two streams."""
_EXPLORED = 3
"""One trial of so many is drawn at random."""
_ATTEMPTS = 20


def _distinct(search: SearchSpec, tries: Sequence[tuple[BaseSampler, int]]) -> BaseSampler:
    listed = all(drawn.listed() is not None for drawn in search.space.values())
    return Distinct(search.space, tries) if listed and search.space else tries[0][0]


class _Whole(BaseSampler):
    """Chooses a draw as a whole."""

    def __init__(self, space: Mapping[str, Range]) -> None:
        self.distributions = {path: distribution(drawn) for path, drawn in space.items()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self.distributions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        del study, trial, param_distribution
        raise AssertionError(f"{param_name} is not in the space")

    def taken(self, study: optuna.Study, but: FrozenTrial) -> set[tuple[str, ...]]:
        """What the other trials have drawn, or will where they are queued."""
        others = (trial for trial in study.get_trials(deepcopy=False) if trial.number != but.number)
        return {self.key(trial.params or trial.system_attrs.get(_FIXED, {})) for trial in others}

    def key(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        # repr: 1, 1.0 and true are different values of a choice.
        return tuple(repr(values.get(path)) for path in self.distributions)


class Distinct(_Whole):
    """Another sampler over listed values, that draws anew where a trial of the study has the draw already.

    A configuration trained twice with one seed gives the same twice. Each sampler has its number of attempts, the next
    one follows, and the last one's last draw stands.
    """

    def __init__(self, space: Mapping[str, Range], tries: Sequence[tuple[BaseSampler, int]]) -> None:
        super().__init__(space)
        self._tries = tuple(tries)
        listed = {path: _listed(path, drawn) for path, drawn in space.items()}
        self._only = {path: values[0] for path, values in listed.items() if len(values) == 1}
        """What is not drawn at all: samplers take no part in it."""

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        for sampler, _ in self._tries:
            sampler.before_trial(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole draw."""
        del search_space
        taken, fixed = self.taken(study, trial), trial.system_attrs.get(_FIXED, {})
        values: dict[str, Any] = fixed
        if fixed.keys() >= self.distributions.keys():
            return values
        for sampler in self._in_turn():
            values = {**self._draw(sampler, study, trial), **fixed}
            if self.key(values) not in taken:
                break
        return {path: values[path] for path in self.distributions}

    def _in_turn(self) -> Iterable[BaseSampler]:
        return itertools.chain.from_iterable(itertools.repeat(sampler, times) for sampler, times in self._tries)

    def _draw(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        values = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        values = self._only | values
        missing = {path: drawn for path, drawn in self.distributions.items() if path not in values}
        return values | {path: sampler.sample_independent(study, trial, path, drawn) for path, drawn in missing.items()}

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: optuna.trial.TrialState,
        values: Sequence[float] | None,
    ) -> None:
        for sampler, _ in self._tries:
            sampler.after_trial(study, trial, state, values)


class Grid(_Whole):
    """Every combination once, in an order drawn with the seed, after what is queued.

    Optuna's own GridSampler ends the study when the grid is through, which raises where trials are asked for and told
    one by one, and draws again what was queued.
    """

    def __init__(self, space: Mapping[str, Range], *, seed: int) -> None:
        super().__init__(space)
        axes = [_listed(path, drawn) for path, drawn in space.items()]
        self._cells = [dict(zip(space, cell, strict=True)) for cell in itertools.product(*axes)]
        Random(seed).shuffle(self._cells)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The first combination that no other trial has."""
        del search_space
        taken = self.taken(study, trial)
        return next((cell for cell in self._cells if self.key(cell) not in taken), self._cells[0])


def _listed(path: str, drawn: Range) -> Sequence[Value]:
    values = drawn.listed()
    assert values is not None, f"{path} has no end of values"
    return values
