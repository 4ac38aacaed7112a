"""A study as a Ray Tune experiment, and a second one where its best configurations are run again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import optuna
from optuna.distributions import BaseDistribution
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tunery.cluster import draws, reruns
from tunery.cluster.draws import ENDINGS, MODES, First, ended, open_study, untouched
from tunery.cluster.messages import METRIC, NUMBER, ORIGIN, Ending, Known, SeatName, StudyData
from tunery.cluster.orders import StudyOrder
from tunery.cluster.sampler import StudySearch, pruner
from tunery.cluster.seat import Seat
from tunery.cluster.spaces import distributions
from tunery.plan import Study

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""Ray Tune gives these to its actors, in a text that Ray's own tables and logs hold in clear. A seat needs none."""

_SEAT = {"CPU": 0.0, "memory": 128.0 * 2**20}
"""What a trial reserves: what its process takes (124 MB, measured as Linux's Pss), since it only waits. A share of a
CPU would keep packs off a node of which they take all CPUs."""

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nobody restores from Tune's snapshots: see `sampler`
    # A study may wait for hours for its first place. Tune would tell of too few resources then, which is wrong, and
    # look at its first trial for it, which is an IndexError where there is none (Ray 2.60).
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "inf",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "inf",
}
"""What Tune reads from the environment of the process that runs it, which is another one than the driver's."""


def run_study(order: StudyOrder) -> int:
    """Run what is left of the study; how many trials the ledger holds then. Raises what its data's preparation did."""
    settle()
    study, search = order.study, order.study.search
    mode = MODES[study.definition.direction]
    ledger = open_study(search, study_name=order.ledger_name, url=order.ledger_url, mode=mode)
    if untouched(ledger):
        draws.queue(ledger, search, list(_firsts(order))[: search.trials])
    data = order.data.get()
    order.desk.recall([_known(study, trial) for trial in ended(ledger)])
    space = distributions(search)
    left = search.trials - len(reruns.searched(ledger))
    _tune(order, data, ledger, space, left, pruner(search, ledger, mode=mode, max_epochs=_most_epochs(study)))
    if search.rerun_best:
        reruns.queue(ledger, search.rerun_best, seed=study.train.seed)
        # No pruner: a mean needs every run to its end.
        everything: TrialScheduler = FIFOScheduler()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        _tune(order, data, ledger, reruns.with_seed(space), reruns.left(ledger), everything)
    return len(ended(ledger))


def settle() -> None:
    """Tune's settings, for this process; what its environment has already stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def _firsts(order: StudyOrder) -> Iterator[First]:
    """What the study begins with: its own values, so that every sweep contains its baseline; then champions'."""
    yield First(order.study.default_draw(), "spec")
    if order.study.search.warm_start == "registry":
        from tunery.cluster.warm_start import champions  # loads MLflow, which no other study should wait for

        yield from champions(order.study, order.tracking_uri)


def _known(study: Study, trial: optuna.trial.FrozenTrial) -> Known:
    return Known(
        name=SeatName(study.name, trial.number),
        ending=ENDINGS[trial.state],
        draw=trial.params,
        origin=trial.user_attrs.get(ORIGIN, ""),
        rerun_of=reruns.rerun_of(trial),
    )


def _tune(
    order: StudyOrder,
    data: StudyData,
    ledger: optuna.Study,
    space: Mapping[str, BaseDistribution],
    left: int,
    scheduler: TrialScheduler,
) -> None:
    """Run so many trials."""
    if left <= 0:
        return
    study, desk = order.study, order.desk
    mode = MODES[study.definition.direction]

    def admit() -> bool:
        return desk.admit(study.name, base=order.base, limit=order.seats)

    def on_end(number: int, ending: Ending) -> None:
        desk.leave(SeatName(study.name, number), ending)

    tuner = tune.Tuner(
        tune.with_resources(Seat, _SEAT),
        param_space={"study": study, "base": order.base, "data": data, "desk": desk},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=mode,
            num_samples=left,
            max_concurrent_trials=min(left, order.seats),
            search_alg=StudySearch(ledger, space, mode=mode, admit=admit, on_end=on_end),
            scheduler=scheduler,
            reuse_actors=True,
            trial_dirname_creator=_number,
        ),
        run_config=tune.RunConfig(
            name=study.name,
            storage_path=str(order.storage_path),
            verbose=0,
            # A seat's process holds nothing: when it dies, a new one joins the same seat at the desk.
            failure_config=tune.FailureConfig(max_failures=1),
            # Its checkpoints are the pack's; Tune's own would be empty.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with _without_keys():
        tuner.fit()


@contextmanager
def _without_keys() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in _KEYS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _number(trial: Trial) -> str:
    return str(trial.config[NUMBER])


def _most_epochs(study: Study) -> int:
    drawn = study.search.space.get("train.epochs")
    ends = drawn.ends() if drawn is not None else (study.train.epochs,)
    return max(int(end) for end in ends if isinstance(end, int | float))
