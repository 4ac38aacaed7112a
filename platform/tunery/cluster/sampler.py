"""A study of `draws` inside Ray Tune: the searcher and the pruner.

Ray Tune's own snapshot is never restored from. A study that goes on after a crash asks the ledger how many trials are
left, gives the ones that were running their old draw and number back, and teaches the pruner what it had seen.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tunery.cluster.draws import Mode, ended
from tunery.cluster.messages import DRAW, METRIC, NUMBER, ORIGIN, RERUN_OF, TIME, Ending
from tunery.spec import SearchSpec

Admit = Callable[[], bool]
"""Asks whether a trial may begin now."""
OnEnd = Callable[[int, Ending], None]


class StudySearch(OptunaSearch):
    """OptunaSearch over a study that may have been begun before.

    Beyond its parent: trials that were running get their draw and number again; a trial that was stopped early is
    told as PRUNED, not as completed (its value is of a smaller budget); a trial that failed is told as FAIL.
    """

    def __init__(
        self,
        study: optuna.Study,
        distributions: Mapping[str, BaseDistribution],
        *,
        mode: Mode,
        admit: Admit,
        on_end: OnEnd,
    ) -> None:
        self._study = study
        self._admit = admit
        self._again = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        self._on_end = on_end
        self._distributions = dict(distributions)
        super().__init__(space=self._distributions, metric=METRIC, mode=mode)

    def _setup_study(self, mode: str | list[str]) -> None:
        pass  # `study` is there already

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if trial_id not in self._ot_trials:
            if not self._admit():
                return None  # Tune asks again
            if self._again:
                begun = self._again.pop(0)
                again = self._ot_trials[trial_id] = optuna.trial.Trial(self._study, begun._trial_id)
                for path, drawn_from in self._distributions.items():
                    again._suggest(path, drawn_from)  # what was drawn stays; a kill may have come before the last one
            else:
                self._ot_trials[trial_id] = self._study.ask(fixed_distributions=self._distributions)
        trial = self._ot_trials[trial_id]
        given = trial.user_attrs
        return {
            NUMBER: trial.number,
            DRAW: dict(trial.params),
            ORIGIN: given.get(ORIGIN, ""),
            RERUN_OF: given.get(RERUN_OF),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            # A trial that goes on from its checkpoint reports its earlier evaluations again; Optuna keeps the first.
            warnings.simplefilter("ignore", UserWarning)
            self._ot_trials[trial_id].report(result[METRIC], result["evaluation"])
        # ASHA counts in epochs, Optuna in whole steps; `pruner` reads this back after a crash.
        self._ot_trials[trial_id].set_user_attr(f"epoch of {result['evaluation']}", result[TIME])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        trial = self._ot_trials[trial_id]
        if result and not error:
            self.on_trial_result(trial_id, result)  # Tune does not show a trial's last result otherwise
        if result and not error and result.get("final"):
            self._study.tell(trial, result[METRIC], state=TrialState.COMPLETE)
            self._on_end(trial.number, "finished")
        elif result and not error:
            self._study.tell(trial, state=TrialState.PRUNED)
            self._on_end(trial.number, "pruned")
        else:
            self._study.tell(trial, state=TrialState.FAIL)
            self._on_end(trial.number, "failed")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state is Optuna's, and a pickle of it would hold the database's address and password."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher into tuner.pkl, which is never read back here: see `save`.
        return {}


def pruner(search: SearchSpec, study: optuna.Study, *, mode: Mode, max_epochs: int) -> TrialScheduler:
    """The spec's pruner over epochs, knowing what the study's ended trials reported."""
    if search.pruner.name == "none" or max_epochs <= search.pruner.grace_epochs:
        return FIFOScheduler()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    if search.pruner.name == "median":
        return _median(study, grace_epochs=search.pruner.grace_epochs)
    return _asha(search, study, mode=mode, max_epochs=max_epochs)


def _asha(search: SearchSpec, study: optuna.Study, *, mode: Mode, max_epochs: int) -> TrialScheduler:
    """ASHA (Li et al. 2018, arXiv 1810.05934)."""
    asha = AsyncHyperBandScheduler(
        time_attr=TIME,
        max_t=max_epochs,
        grace_period=search.pruner.grace_epochs,
        reduction_factor=search.pruner.reduction,
    )
    sign = 1.0 if mode == "max" else -1.0
    for number, results in _told(study):
        stranger: Any = SimpleNamespace(trial_id=f"before-{number}")
        for result in results:
            asha._brackets[0].on_result(stranger, result[TIME], sign * result[METRIC])
    return asha


def _median(study: optuna.Study, *, grace_epochs: int) -> TrialScheduler:
    """The median stopping rule of Vizier (Golovin et al. 2017)."""
    # A trial that waits for others to compare itself with would have to leave its seat: none is ever paused.
    rule = MedianStoppingRule(time_attr=TIME, grace_period=grace_epochs, min_time_slice=math.inf)  # type: ignore[arg-type]
    for number, results in _told(study):
        if results:
            rule._results[f"before-{number}"] = results
    return rule


def _told(study: optuna.Study) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The ended trials' numbers and reports."""
    for trial in ended(study):
        values = sorted(trial.intermediate_values.items())
        epochs = trial.user_attrs
        yield trial.number, [{TIME: epochs[f"epoch of {index}"], METRIC: value} for index, value in values]
