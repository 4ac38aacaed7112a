"""The sweep that every arm runs: the same rows, the same configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from benchmarks.trials.workload import Limits, Workload, load
from tuners.config import Frozen, TrainConfig
from tuners.lora.config import Config as LoraConfig
from tunery.plan import Study, compile_plan
from tunery.spec import Value, parse_spec

SPACE: Mapping[str, Mapping[str, Any]] = {
    "tuner.rank": {"choice": [4, 8, 16]},
    "train.learning_rate": {"log_uniform": [5.0e-4, 8.0e-3]},
}
"""What the configurations are drawn from; the first one has the sweep's own values. Few rows want high rates."""

Draw = Mapping[str, Value]


class Sweep(Frozen):
    """Travels to an arm's processes as JSON."""

    task: str
    model: str
    data: str
    """Folder with the bounded rows."""
    tuner: LoraConfig
    train: TrainConfig
    trials: int
    draw_seed: int
    cores: int
    seats: int
    """Of a pack, where packs are used."""
    dtype: Literal["float32", "bfloat16", "auto"]
    """Of the frozen base in the engine's arms; the rivals compute in float32."""

    def spec(self, name: str, *, packs: int, seats: int, threads: int, pruner: Literal["asha", "none"]) -> str:
        """The sweep as `platform submit` takes it: JSON."""
        return json.dumps(
            {
                "apiVersion": "tunery/v1",
                "kind": "Sweep",
                "name": name,
                "model": {"id": self.model, "dtype": self.dtype},
                "tasks": [self.task],
                "data": {"source": "path", "root": self.data},
                "tuner": self.tuner.model_dump(mode="json"),
                "train": self.train.model_dump(mode="json"),
                "search": {
                    "trials": self.trials,
                    # Random, because its draws do not depend on scores: the other arms can be given the same.
                    "sampler": {"name": "random", "seed": self.draw_seed},
                    "pruner": {"name": pruner},
                    "space": SPACE,
                },
                "resources": {"packs": packs, "workers": 1, "cpus_per_worker": threads, "seats": seats},
            },
            indent=1,
        )

    @property
    def study(self) -> Study:
        """The sweep as the platform plans it."""
        text = self.spec("sweep", packs=1, seats=1, threads=1, pruner="none")
        return compile_plan(parse_spec(text, file="the sweep's spec")).studies[0]

    def workload(self, draw: Draw) -> Workload:
        """One trial's rows and hyperparameters, for the arms that are not the platform."""
        trial = self.study.trial(draw)
        assert isinstance(trial.tuner, LoraConfig)
        root = Path(self.data)
        return load(self.task, root=root, model=self.model, tuner=trial.tuner, train=trial.train, limits=Limits())


def draws(sweep: Sweep) -> tuple[Draw, ...]:
    """What the platform's sampler draws in this sweep, in the order of the trials' numbers."""
    import optuna

    from tunery.cluster.draws import MODES, First, open_study, queue
    from tunery.cluster.spaces import distributions
    from tunery.tasks import get

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = sweep.study
    in_memory = "sqlite://"
    mode = MODES[get(study.task).direction]
    ledger = open_study(study.search, study_name=study.name, url=in_memory, mode=mode)
    queue(ledger, study.search, [First(study.default_draw(), "spec")])
    space = distributions(study.search)
    return tuple(dict(ledger.ask(fixed_distributions=space).params) for _ in range(sweep.trials))
