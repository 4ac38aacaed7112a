"""A study as a Ray Tune experiment."""

from __future__ import annotations

from ray import tune
from ray.tune.experiment import Trial

from tunery.cluster.draws import MODES, ended, open_study
from tunery.cluster.messages import METRIC, NUMBER, Ending, Known, SeatName
from tunery.cluster.orders import StudyOrder
from tunery.cluster.sampler import StudySearch, pruner
from tunery.cluster.seat import Seat
from tunery.plan import Study
from tunery.tasks import get


def run_study(order: StudyOrder) -> int:
    """Run what is left of the study; how many trials the ledger holds then."""
    study, desk = order.study, order.desk
    mode = MODES[get(study.task).direction]
    ledger = open_study(
        study.search,
        study_name=order.ledger_name,
        url=order.ledger_url,
        mode=mode,
        first=study.default_draw(),
    )
    before = ended(ledger)
    desk.recall([Known(SeatName(study.name, number), how, draw) for number, how, draw in before])
    left = study.search.trials - len(before)
    if left <= 0:
        return len(before)

    def admit() -> bool:
        return desk.admit(study.name, base=order.base, limit=order.seats)

    def on_end(number: int, ending: Ending) -> None:
        desk.leave(SeatName(study.name, number), ending)

    tune.Tuner(
        tune.with_resources(Seat, {"CPU": 0.001}),
        param_space={"study": study, "base": order.base, "data": order.data, "desk": desk},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode=mode,
            num_samples=left,
            max_concurrent_trials=min(left, order.seats),
            search_alg=StudySearch(ledger, study.search, mode=mode, admit=admit, on_end=on_end),
            scheduler=pruner(study.search, ledger, mode=mode, max_epochs=_most_epochs(study)),
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
    ).fit()
    return len(ended(ledger))


def _number(trial: Trial) -> str:
    return str(trial.config[NUMBER])


def _most_epochs(study: Study) -> int:
    drawn = study.search.space.get("train.epochs")
    ends = drawn.ends() if drawn is not None else (study.train.epochs,)
    return max(int(end) for end in ends if isinstance(end, int | float))
