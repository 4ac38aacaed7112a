"""A study of `draws` inside Ray Tune: the searcher and the pruner.

Ray Tune's own snapshot is never restored from. A study that goes on after a crash asks the ledger how many trials are
left, gives the ones that were running their old draw and number back, and teaches ASHA what it had seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tunery.cluster.draws import ENDINGS, Mode, distribution
from tunery.cluster.messages import DRAW, METRIC, NUMBER, TIME, Ending
from tunery.spec import SearchSpec

Admit = Callable[[], bool]
"""Asks whether a trial may begin now."""
OnEnd = Callable[[int, Ending], None]


class StudySearch(OptunaSearch):
    """OptunaSearch over a study that may have been begun before.

    Beyond its parent: trials that were running get their draw and number again; a trial that ASHA stopped is told
    as PRUNED, not as completed (its value is of a smaller budget); a trial that failed is told as FAIL.
    """

    def __init__(self, study: optuna.Study, search: SearchSpec, *, mode: Mode, admit: Admit, on_end: OnEnd) -> None:
        self._study = study
        self._admit = admit
        self._again = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
        self._on_end = on_end
        space = {path: distribution(drawn) for path, drawn in search.space.items()}
        super().__init__(space=space, metric=METRIC, mode=mode)
        self._distributions = space

    def _setup_study(self, mode: str | list[str]) -> None:
        pass  # `study` is there already

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if trial_id not in self._ot_trials:
            if not self._admit():
                return None  # Tune asks again
            if self._again:
                begun = self._again.pop(0)
                self._ot_trials[trial_id] = optuna.trial.Trial(self._study, begun._trial_id)
            else:
                self._ot_trials[trial_id] = self._study.ask(fixed_distributions=self._distributions)
        trial = self._ot_trials[trial_id]
        return {NUMBER: trial.number, DRAW: dict(trial.params)}

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
    """ASHA (Li et al. 2018, arXiv 1810.05934) over epochs, knowing what the study's ended trials reported."""
    if search.pruner.name == "none" or max_epochs <= search.pruner.grace_epochs:
        return FIFOScheduler()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    asha = AsyncHyperBandScheduler(
        time_attr=TIME,
        max_t=max_epochs,
        grace_period=search.pruner.grace_epochs,
        reduction_factor=search.pruner.reduction,
    )
    sign = 1.0 if mode == "max" else -1.0
    for trial in study.get_trials(deepcopy=False, states=tuple(ENDINGS)):
        stranger: Any = SimpleNamespace(trial_id=f"before-{trial.number}")
        for evaluation, value in sorted(trial.intermediate_values.items()):
            epoch = trial.user_attrs[f"epoch of {evaluation}"]
            asha._brackets[0].on_result(stranger, epoch, sign * value)
    return asha
