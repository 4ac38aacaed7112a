"""How much of a study's result each drawn hyperparameter explains: fANOVA (Hutter et al. 2014), Optuna's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution

from tunery.cluster.spaces import distributions
from tunery.report.documents.facts import Facts, finite
from tunery.runs import StudyState, TrialState
from tunery.spec import SearchSpec

LEAST = 4
"""Trials without which there is nothing to explain."""
_TREES = 64


@dataclass(frozen=True)
class Weights:
    """What was found."""

    shares: Mapping[str, Mapping[str, float]]
    """Study -> path -> its share of the differences that all of them explain."""
    lacking: Mapping[str, str]
    """Study -> why there are none."""


def weigh(facts: Facts) -> Weights:
    """Of every study."""
    found: dict[str, dict[str, float]] = {}
    lacking: dict[str, str] = {}
    for study in facts.state.studies:
        search = facts.searches.get(study.name)
        shares = _of(study, search) if search else "its plan cannot be read"
        if isinstance(shares, str):
            lacking[study.name] = shares
        else:
            found[study.name] = shares
    return Weights(found, lacking)


def _of(study: StudyState, search: SearchSpec) -> dict[str, float] | str:
    """The shares, or why there are none."""
    if not search.space:
        return "nothing is drawn"
    # What was pruned has another number of epochs behind its result, a rerun another seed.
    told = [trial for trial in study.trials if trial.status == "finished" and trial.rerun_of is None and finite(trial)]
    told = [trial for trial in told if _within(trial, search)]
    if len(told) < LEAST:
        return f"{len(told)} trials ran to their end; it takes {LEAST}"
    # Imported here: it loads scikit-learn, which a run of few trials does without.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    evaluator = FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
    try:
        shares = get_param_importances(_study(study, distributions(search), told), evaluator=evaluator)
    except RuntimeError:  # Optuna's word for it
        return "its trials have the same result"
    return {path: float(share) for path, share in shares.items()}


def _within(trial: TrialState, search: SearchSpec) -> bool:
    """A champion's values may lie beside the range of this spec."""
    return all(path in trial.config and drawn.contains(trial.config[path]) for path, drawn in search.space.items())


def _study(study: StudyState, space: Mapping[str, BaseDistribution], trials: Sequence[TrialState]) -> optuna.Study:
    """The trials as Optuna has them, in memory."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        made = optuna.create_study(direction="maximize" if study.direction == "maximise" else "minimize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    made.add_trials(
        [
            optuna.create_trial(
                params={path: trial.config[path] for path in space}, distributions=dict(space), value=trial.objective
            )
            for trial in trials
        ]
    )
    return made
