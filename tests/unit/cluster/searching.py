"""A study on a real sqlite file, searched as Ray Tune would, without Ray: what a trial scores is a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from ray.tune.schedulers import TrialScheduler

from tunery.cluster import draws, spaces
from tunery.cluster.messages import DRAW, METRIC, NUMBER, ORIGIN, RERUN_OF, TIME, Ending
from tunery.cluster.sampler import StudySearch, pruner
from tunery.spec import SearchSpec

Score = Callable[[Mapping[str, Any], int], float]
"""Draw and epoch -> the report."""


def search_of(**fields: Any) -> SearchSpec:
    space = {"tuner.rank": {"choice": [4, 8, 16]}, "train.epochs": {"int_uniform": [1, 2]}}
    return SearchSpec.model_validate({"trials": 6, "space": space, **fields})


@dataclass
class Process:
    """One life of a study's process: opens the ledger anew."""

    folder: Path
    search: SearchSpec
    epochs: int = 3
    ends: list[tuple[int, Ending]] = field(default_factory=list)

    def __post_init__(self) -> None:
        url = f"sqlite:///{self.folder / 'optuna.db'}"
        self.study = draws.open_study(self.search, study_name="run/cola", url=url, mode="max")
        self.restart()

    def restart(self, distributions: Mapping[str, Any] | None = None) -> None:
        """What Tune has of the study, made anew."""
        self.searcher = StudySearch(
            self.study,
            distributions or spaces.distributions(self.search),
            mode="max",
            admit=lambda: True,
            on_end=lambda number, ending: self.ends.append((number, ending)),
        )
        self.scheduler = pruner(self.search, self.study, mode="max", max_epochs=self.epochs)
        self.scheduler.set_search_properties(METRIC, "max")

    def ask(self, name: str) -> dict[str, Any]:
        """Begin a trial; its Tune config."""
        config = self.searcher.suggest(name)
        assert config is not None
        assert set(config) == {NUMBER, DRAW, ORIGIN, RERUN_OF}
        self.scheduler.on_trial_add(_NOBODY, _tune(name))
        return config

    def train(self, name: str, config: Mapping[str, Any], score: Score, *, upto: int | None = None) -> int:
        """Report epoch after epoch to the end, the pruner's word or `upto`; the last epoch."""
        for epoch in range(1, (upto or self.epochs) + 1):
            final = epoch == self.epochs
            result = {METRIC: score(config[DRAW], epoch), TIME: float(epoch), "evaluation": epoch - 1, "final": final}
            decision = TrialScheduler.STOP
            if not final:
                decision = self.scheduler.on_trial_result(_NOBODY, _tune(name), result)
                assert decision != TrialScheduler.PAUSE
            if decision == TrialScheduler.STOP:
                self.scheduler.on_trial_complete(_NOBODY, _tune(name), result)
                self.searcher.on_trial_complete(name, result)
                return epoch
            self.searcher.on_trial_result(name, result)
        return upto or self.epochs

    def run(self, trials: int, score: Score, *, prefix: str = "") -> list[dict[str, Any]]:
        """So many trials, one after another."""
        configs = []
        for index in range(trials):
            configs.append(self.ask(f"{prefix}{index}"))
            self.train(f"{prefix}{index}", configs[-1], score)
        return configs

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]


_NOBODY: Any = None


@dataclass(frozen=True)
class _Trial:
    """What a scheduler sees of Tune's."""

    trial_id: str


def _tune(name: str) -> Any:
    return _Trial(name)


def frozen(study: optuna.Study, number: int) -> optuna.trial.FrozenTrial:
    return study.get_trials(deepcopy=False)[number]
