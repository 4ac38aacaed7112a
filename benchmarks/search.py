"""What a search finds for its budget, on recorded curves: the engine's coupling of Optuna and ASHA beside Ray's own.

    python -m benchmarks.search --table sst2 --seeds 20 --budget 90

Nothing is trained: an epoch of a trial is a look into benchmarks/curves/TABLE.csv and takes, on a simulated clock, the
seconds that it took. The space is the table's grid, workers run side by side, and each arm has the same first trial.
The searchers and schedulers are the real ones, called as Ray Tune calls them. The budget is counted in epochs trained.

    ray         OptunaSearch with its default sampler, and ASHA, as Ray ships both
    ray-ours    the same with our sampler's settings: what is left is the coupling
    ours        StudySearch: a stopped trial is told as pruned
    random      StudySearch with the random sampler, and ASHA
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import logging
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from ray.air.constants import TRAINING_ITERATION
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks import learning_curves, report
from benchmarks.learning_curves import Cell, Curve, Table
from tuners.config import TrainConfig
from tuners.lora.config import Config as LoraConfig
from tunery.cluster import draws, spaces
from tunery.cluster.draws import First
from tunery.cluster.messages import DRAW, METRIC, TIME
from tunery.cluster.sampler import StudySearch, pruner
from tunery.spec import IntUniform, PrunerSpec, Range, SamplerSpec, SearchSpec

REDUCTION = 3
DEFAULTS: Mapping[str, float] = {
    "train.learning_rate": TrainConfig().learning_rate,
    "train.batch_size": TrainConfig().batch_size,
    "tuner.rank": LoraConfig().rank,
}
"""A spec's own, by axis."""

Places = Mapping[str, int]
"""A configuration: its place on each axis."""


def space_of(table: Table) -> dict[str, Range]:
    """The table's grid: places, not values, so that what is drawn is there."""
    return {axis: IntUniform(int_uniform=(0, len(values) - 1)) for axis, values in table.axes.items()}


def first_of(table: Table) -> Places:
    """Every arm's first trial: the places nearest to a spec's defaults, and the first of an axis that has none."""

    def far(axis: str, value: float) -> float:
        return abs(math.log(value / DEFAULTS[axis])) if axis in DEFAULTS else 0.0

    return {
        axis: min(range(len(values)), key=lambda place, axis=axis, values=values: far(axis, values[place]))  # type: ignore[misc]  # bound now
        for axis, values in table.axes.items()
    }


@dataclass(frozen=True)
class Rig:
    """What chooses and what stops."""

    searcher: Searcher
    scheduler: TrialScheduler
    places: Callable[[Mapping[str, Any]], Places]
    """Of what the searcher suggests."""


@dataclass
class Trial:
    """A trial under way."""

    trial_id: str
    curve: Curve
    epochs: int = 0

    @property
    def reported(self) -> float:
        """The best score so far; NaN before the first."""
        return max(self.curve.scores[: self.epochs], default=math.nan)


@dataclass
class Replay:
    """What a search had come to after each epoch that it spent."""

    chosen: list[Cell] = field(default_factory=list)
    """The configuration of the trial with the best report."""
    reached: list[float] = field(default_factory=list)
    """That report."""
    trials: int = 0


def replay(table: Table, rig: Rig, *, budget: int, workers: int) -> Replay:
    """Search until so many epochs are spent."""
    found, best, now = Replay(), None, 0.0
    running: list[tuple[float, int, Trial]] = []
    while len(found.chosen) < budget:
        while len(running) < workers:
            trial = _begin(table, rig, found.trials)
            found.trials += 1
            heapq.heappush(running, (now + _epoch_s(table, trial), found.trials, trial))
        now, number, trial = heapq.heappop(running)
        trial.epochs += 1
        if _goes_on(table, rig, trial):
            heapq.heappush(running, (now + _epoch_s(table, trial), number, trial))
        if not math.isnan(trial.reported) and (best is None or trial.reported > best.reported):
            best = trial
        found.chosen.append(best.curve.cell if best else trial.curve.cell)
        found.reached.append(best.reported if best else -math.inf)
    return found


def _begin(table: Table, rig: Rig, number: int) -> Trial:
    trial_id = f"{number:05d}"
    suggested = rig.searcher.suggest(trial_id)
    assert suggested is not None
    places = rig.places(suggested)
    trial = Trial(trial_id, table.curves[tuple(values[places[axis]] for axis, values in table.axes.items())])
    rig.scheduler.on_trial_add(_CONTROLLER, _tune(trial))
    return trial


def _goes_on(table: Table, rig: Rig, trial: Trial) -> bool:
    """Show an epoch's result to the scheduler and the searcher in Tune's order."""
    if math.isnan(trial.curve.scores[trial.epochs - 1]):
        rig.searcher.on_trial_complete(trial.trial_id, error=True)
        return False
    final = trial.epochs == table.epochs
    result = {
        METRIC: trial.reported,
        TIME: trial.epochs,
        TRAINING_ITERATION: trial.epochs,
        "evaluation": trial.epochs - 1,
        "final": final,
        "done": final,
    }
    decision = TrialScheduler.STOP
    if not final:
        decision = rig.scheduler.on_trial_result(_CONTROLLER, _tune(trial), result)
    if decision == TrialScheduler.CONTINUE:
        rig.searcher.on_trial_result(trial.trial_id, result)
        return True
    rig.scheduler.on_trial_complete(_CONTROLLER, _tune(trial), result)
    rig.searcher.on_trial_complete(trial.trial_id, result=result)
    return False


_CONTROLLER: Any = None
"""Neither scheduler looks at Tune's controller."""


def _tune(trial: Trial) -> Any:
    """The trial as a scheduler sees it."""
    return SimpleNamespace(trial_id=trial.trial_id)


def _epoch_s(table: Table, trial: Trial) -> float:
    return trial.curve.seconds / table.epochs


# -- arms -----------------------------------------------------------------------------------------------------


def ours(seed: int, table: Table, grace: int, *, sampler: Any = "tpe", firsts: Sequence[First] = ()) -> Rig:
    """As `tunery.cluster.studies` puts a study together."""
    search = SearchSpec(
        trials=100,
        sampler=SamplerSpec(name=sampler, seed=seed),
        pruner=PrunerSpec(name="asha", reduction=REDUCTION, grace_epochs=grace),
        space=space_of(table),
    )
    # In memory, as Ray's own is: a database would only be slower.
    study = optuna.create_study(direction="maximize", sampler=spaces.sampler(search, known=0))
    draws.queue(study, search, [First(first_of(table), "spec"), *firsts])
    space = spaces.distributions(search)
    searcher = StudySearch(study, space, mode="max", admit=lambda: True, on_end=lambda *_: None)
    scheduler = pruner(search, study, mode="max", max_epochs=table.epochs)
    scheduler.set_search_properties(METRIC, "max")
    return Rig(searcher, scheduler, lambda suggested: suggested[DRAW])


def rays(seed: int, table: Table, grace: int, *, our_sampler: bool) -> Rig:
    """As Ray's documentation puts OptunaSearch and ASHA together."""
    search = SearchSpec(trials=100, sampler=SamplerSpec(seed=seed), space=space_of(table))
    sampler = spaces.sampler(search, known=0) if our_sampler else optuna.samplers.TPESampler(seed=seed)
    space, first = spaces.distributions(search), dict(first_of(table))
    searcher = OptunaSearch(space=space, metric=METRIC, mode="max", points_to_evaluate=[first], sampler=sampler)
    scheduler = AsyncHyperBandScheduler(
        time_attr=TRAINING_ITERATION, max_t=table.epochs, grace_period=grace, reduction_factor=REDUCTION
    )
    scheduler.set_search_properties(METRIC, "max")
    return Rig(searcher, scheduler, lambda suggested: {axis: suggested[axis] for axis in table.axes})


ARMS: Mapping[str, Callable[[int, Table, int], Rig]] = {
    "ray": partial(rays, our_sampler=False),
    "ray-ours": partial(rays, our_sampler=True),
    "ours": ours,
    "random": partial(ours, sampler="random"),
    "gp": partial(ours, sampler="gp"),
}


@dataclass(frozen=True)
class Job:
    """One search."""

    table: str
    arm: str
    seed: int
    budget: int
    workers: int
    grace: int
    """Epochs that every trial may have."""


def run(job: Job) -> Replay:
    _quiet()
    table = learning_curves.read(job.table)
    return replay(table, ARMS[job.arm](job.seed, table, job.grace), budget=job.budget, workers=job.workers)


def run_warm(job: Job) -> tuple[Replay, Replay]:
    """An earlier search with another seed, and a later one that begins with its best configuration too."""
    _quiet()
    table = learning_curves.read(job.table)
    earlier = replay(table, ours(job.seed + 10_000, table, job.grace), budget=job.budget, workers=job.workers)
    best = earlier.chosen[-1]
    champion = {axis: values.index(value) for (axis, values), value in zip(table.axes.items(), best, strict=True)}
    rig = ours(job.seed, table, job.grace, firsts=[First(champion, "registry")])
    return earlier, replay(table, rig, budget=job.budget, workers=job.workers)


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


# -- tables ---------------------------------------------------------------------------------------------------


def final_scores(table: Table, replays: Sequence[Replay], spent: int) -> list[float]:
    """What the configurations chosen after so many epochs are worth when trained to the end, a search each."""
    return [_worth(table, found.chosen[spent - 1]) for found in replays]


def _worth(table: Table, cell: Cell) -> float:
    final = table.curves[cell].final
    return min(curve.scores[0] for curve in table.curves.values()) if math.isnan(final) else final


def scores_table(table: Table, found: Mapping[str, Sequence[Replay]], budget: int) -> str:
    """A row an arm, at the whole budget; wins, ties and losses are against `ray`, seed by seed."""
    rival = final_scores(table, found["ray"], budget) if "ray" in found else None
    rows = []
    for arm, replays in found.items():
        scores = final_scores(table, replays, budget)
        against = "" if rival is None or arm == "ray" else _wins(scores, rival)
        trials = statistics.mean(each.trials for each in replays)
        rows.append([arm, f"{statistics.mean(scores):.4f}", f"{statistics.median(scores):.4f}", f"{min(scores):.4f}",
                     f"{table.best - statistics.mean(scores):.4f}", against, f"{trials:.0f}"])  # fmt: skip
    return report.table(["arm", "mean", "median", "worst", "mean regret", "won-tied-lost to ray", "trials"], rows)


def _wins(scores: Sequence[float], rival: Sequence[float]) -> str:
    pairs = list(zip(scores, rival, strict=True))
    return f"{sum(a > b for a, b in pairs)}-{sum(a == b for a, b in pairs)}-{sum(a < b for a, b in pairs)}"


def regret_table(table: Table, found: Mapping[str, Sequence[Replay]], budget: int) -> str:
    """Mean regret at shares of the budget."""
    points = [round(budget * share / 6) for share in range(1, 7)]
    rows = [
        [arm, *(f"{table.best - statistics.mean(final_scores(table, replays, p)):.4f}" for p in points)]
        for arm, replays in found.items()
    ]
    return report.table(["mean regret after epochs", *map(str, points)], rows)


def warm_table(cold: Sequence[Replay], warm: Sequence[tuple[Replay, Replay]], budget: int) -> str:
    """Epochs until a later search reports what the earlier one ended with; the budget where it does not."""
    goals = [earlier.reached[-1] for earlier, _ in warm]
    rows = []
    for name, replays in (("without", cold), ("with", [later for _, later in warm])):
        epochs = [_first(found.reached, goal) for found, goal in zip(replays, goals, strict=True)]
        filled = [budget if epoch is None else epoch for epoch in epochs]
        there = sum(epoch is not None for epoch in epochs)
        rows.append([name, f"{there} of {len(epochs)}", f"{statistics.median(filled):.0f}", f"{max(filled)}"])
    return report.table(["warm start", "reached it", "epochs, median", "epochs, most"], rows)


def _first(reached: Sequence[float], goal: float) -> int | None:
    return next((epoch for epoch, value in enumerate(reached, start=1) if value >= goal), None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--table", default="sst2-heads", choices=learning_curves.names())
    parser.add_argument("--arms", nargs="+", default=["ray", "ray-ours", "ours", "random"], choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=20, help="searches an arm")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=150, help="epochs a search")
    parser.add_argument("--grace", type=int, default=PrunerSpec().grace_epochs, help="epochs that every trial may have")
    parser.add_argument("--workers", type=int, default=4, help="trials at once")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    table = learning_curves.read(chosen.table)
    jobs = list(_jobs(chosen))
    with ProcessPoolExecutor(chosen.processes) as pool:
        replays = list(pool.map(run, jobs))
        warm = list(pool.map(run_warm, [job for job in jobs if job.arm == "ours"]))
    found = {arm: [each for job, each in zip(jobs, replays, strict=True) if job.arm == arm] for arm in chosen.arms}
    print(f"{chosen.table}: {len(table.curves)} curves of {table.epochs} epochs, the best {table.best:.4f}\n")
    print(scores_table(table, found, chosen.budget), end="\n\n")
    print(regret_table(table, found, chosen.budget), end="\n\n")
    if "ours" in found:
        print(warm_table(found["ours"], warm, chosen.budget))


def _jobs(chosen: argparse.Namespace) -> Iterator[Job]:
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    for arm, seed in itertools.product(chosen.arms, seeds):
        yield Job(chosen.table, arm, seed, chosen.budget, chosen.workers, chosen.grace)


if __name__ == "__main__":
    main()
