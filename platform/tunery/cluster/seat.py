"""The Tune trainable: a thin actor that asks the desk for a seat and passes the seat's reports on to Tune.

It loads no torch and trains nothing, so that a trial costs what an actor costs, and actors are reused.
"""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from tunery.cluster.messages import DRAW, METRIC, NUMBER, ORIGIN, RERUN_OF, TIME, Ended, SeatName, SeatOrder
from tunery.cluster.remote_desk import RemoteDesk
from tunery.errors import RunError
from tunery.plan import Study


class Seat(Trainable):
    """One trial. Tune's config: `number`, `draw`, `origin`, `rerun_of`; for the whole study `study`, `base`, `data`,
    `desk`."""

    def setup(self, config: dict[str, Any]) -> None:
        self._join(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._join(new_config)
        return True

    def _join(self, config: dict[str, Any]) -> None:
        study: Study = config["study"]
        self._desk: RemoteDesk = config["desk"]
        self._name = SeatName(study.name, config[NUMBER])
        self._reports = 0
        trial = study.trial(config[DRAW])
        self._desk.join(
            SeatOrder(
                name=self._name,
                base=config["base"],
                trial=trial.model_dump_json(),
                draw=config[DRAW],
                data=config["data"],
                origin=config[ORIGIN],
                rerun_of=config[RERUN_OF],
            )
        )

    def step(self) -> dict[str, Any]:
        answer = self._desk.next_report(self._name, self._reports)
        if isinstance(answer, Ended):
            # Raised, so that Tune's ledger says the same as Optuna's and MLflow's: this trial failed.
            raise RunError(f"trial {self._name} {answer.ending}: {answer.reason}")
        self._reports += 1
        return {
            METRIC: answer.objective,
            TIME: answer.epoch,
            "evaluation": answer.index,
            "final": answer.final,
            "done": answer.final,
            **{f"metrics/{name}": value for name, value in answer.metrics.items()},
        }
