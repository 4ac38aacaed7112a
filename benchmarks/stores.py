"""What a trial costs in Optuna's database when its study holds many, ended and under way.

    python -m benchmarks.stores                                     # in a database file that is removed again
    python -m benchmarks.stores --url postgresql://optuna@HOST:PORT/optuna --cpu-of postgres=PORT

Real: the study as a run opens it, its sampler, and the searcher that Ray Tune asks and tells (`StudySearch`). Made up:
what the trials report. The study is removed from the database at the end.

Measured over trials one after another: statements and commits a trial, milliseconds and this process's CPU seconds for
each of the three things that a trial does (it is drawn, it reports, it ends), and CPU seconds of the database.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import create_trial
from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks import servers
from benchmarks.report import machine, progress, save, table
from tunery.cluster import draws, spaces
from tunery.cluster.messages import METRIC, TIME
from tunery.cluster.sampler import StudySearch
from tunery.spec import Choice, LogUniform, SearchSpec, Uniform

SPACE = {
    "train.learning_rate": LogUniform(log_uniform=(1e-5, 1e-2)),
    "train.weight_decay": Uniform(uniform=(0.0, 0.1)),
    "tuner.rank": Choice(choice=(4, 8, 16)),
    "tuner.dropout": Uniform(uniform=(0.0, 0.2)),
}
"""That of control_plane.py."""
PARTS = ("drawn", "reports", "ends")


@dataclass
class Spent:
    """In one part of the trials' lives, of all together."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    statements: int = 0
    commits: int = 0


@dataclass
class Meter:
    """What is sent to databases, by the part that is under way."""

    spent: defaultdict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    _part: str = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = (("before_cursor_execute", self._statement), ("commit", self._commit))
        for name, hook in hooks:
            event.listen(Engine, name, hook)
        try:
            yield
        finally:
            for name, hook in hooks:
                event.remove(Engine, name, hook)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._part = name
        wall, cpu = time.monotonic(), time.process_time()
        yield
        self.spent[name].wall_s += time.monotonic() - wall
        self.spent[name].cpu_s += time.process_time() - cpu

    def _statement(self, *_: Any) -> None:
        self.spent[self._part].statements += 1

    def _commit(self, *_: Any) -> None:
        self.spent[self._part].commits += 1


def measured(
    url: str, *, known: int, running: int, trials: int, evaluations: int, watched: servers.Servers
) -> dict[str, Any]:
    """Of `trials` trials, in a study that holds `known` ended ones, and `running` that have not ended."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = SearchSpec(trials=known + running + trials, space=SPACE)
    name = f"benchmarks/stores-{uuid.uuid4().hex[:8]}"
    study = draws.open_study(search, study_name=name, url=url, mode="max")
    space = spaces.distributions(search)
    progress(f"a study of {known} trials")
    for number in range(known):
        study.add_trial(_ended(number, space, evaluations))
    study = draws.open_study(search, study_name=name, url=url, mode="max")  # as one that goes on
    meter = Meter()
    tune = StudySearch(study, space, mode="max", admit=lambda: True, on_end=lambda *_: None)
    for number in range(running):
        tune.suggest(f"running-{number}")
    progress(f"{trials} more")
    began = watched.cpu()
    with meter.watching():
        for number in range(trials):
            with meter.part("drawn"):
                tune.suggest(str(number))
            for index in range(evaluations):
                result = _result(number, index, evaluations)
                if index + 1 < evaluations:
                    with meter.part("reports"):
                        tune.on_trial_result(str(number), result)
                else:
                    with meter.part("ends"):
                        tune.on_trial_complete(str(number), result)
    took = servers.since(began, watched.cpu())
    optuna.delete_study(study_name=name, storage=study._storage)
    return {"parts": {part: asdict(meter.spent[part]) for part in PARTS}, "servers_cpu_s": took}


def _ended(number: int, space: dict[str, Any], evaluations: int) -> optuna.trial.FrozenTrial:
    draw = optuna.samplers.RandomSampler(seed=number)
    blank = optuna.create_study(sampler=draw).ask(space)
    values = {index: _result(number, index, evaluations)[METRIC] for index in range(evaluations)}
    return create_trial(
        params=blank.params,
        distributions=space,
        value=values[evaluations - 1],
        intermediate_values=values,
        user_attrs={f"epoch of {index}": index + 1.0 for index in range(evaluations)},
    )


def _result(number: int, index: int, evaluations: int) -> dict[str, Any]:
    # Any values do, as long as the sampler has something to tell apart.
    score = (number * 7919 % 101) / 101 + index / 10
    return {METRIC: score, TIME: index + 1.0, "evaluation": index, "final": index + 1 == evaluations}


def told(found: dict[str, Any], *, trials: int) -> str:
    rows = [
        [part, *(f"{each[key] / trials:.1f}" for key in ("statements", "commits")),
         *(f"{1000 * each[key] / trials:.1f}" for key in ("wall_s", "cpu_s"))]
        for part, each in found["parts"].items()
    ]  # fmt: skip
    lines = [f"CPU of {name}: {1000 * s / trials:.1f} ms a trial" for name, s in found["servers_cpu_s"].items()]
    return "\n".join([table(["of a trial", "statements", "commits", "ms", "CPU ms of the study"], rows), *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--url", help="the database, without a password (PGPASSFILE); left out, a file")
    parser.add_argument("--known", type=int, default=200, help="trials that the study holds")
    parser.add_argument("--running", type=int, default=0, help="further trials, which do not end")
    parser.add_argument("--trials", type=int, default=50, help="that are measured")
    parser.add_argument("--evaluations", type=int, default=3, help="of a trial")
    servers.add_option(parser)
    parser.add_argument("--name", default="stores", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    where = machine()
    with tempfile.TemporaryDirectory(prefix="stores-") as folder:
        found = measured(
            options.url or f"sqlite:///{folder}/optuna.db",
            known=options.known,
            running=options.running,
            trials=options.trials,
            evaluations=options.evaluations,
            watched=servers.given(options.cpu_of),
        )
    print(told(found, trials=options.trials))
    shown = {**vars(options), "url": (options.url or "sqlite").partition(":")[0]}
    print(f"written: {save(options.name, {'machine': where, 'options': shown, **found})}")


if __name__ == "__main__":
    main()
