"""The desk's events, as what MLflow should hold of them: they go into the spool, and a thread ships it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from storage.checkpoints import CheckpointStore
from tunery.cluster.messages import (
    Ending,
    Event,
    Joined,
    Known,
    Left,
    Report,
    Reported,
    Seated,
    SeatName,
    SeatOrder,
    StudyData,
    Value,
)
from tunery.cluster.reports import read_reports
from tunery.cluster.tracking import EventFiles, Shipper, Status, Tracker
from tunery.home import who
from tunery.plan import Plan, Study
from tunery.profile import Profile
from tunery.runs import REPORTS, RunFolder

STATUSES: Mapping[Ending, Status] = {
    "finished": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
}
LAST_SHIPMENT_S = 60.0
"""Within which MLflow must have taken something more, or the end of a run waits for it no longer."""


class Recorder:
    """One run's tracking."""

    def __init__(self, folder: RunFolder, profile: Profile, *, tensorboard: bool = False) -> None:
        self._folder = folder
        self._events = EventFiles(folder.root / "tensorboard") if tensorboard else None
        self._tracker = Tracker(folder.spool)
        # A tracking server keeps artifacts where it was told to; without one they lie where the profile says.
        artifacts = Path(profile.artifacts) if profile.tracking_uri.startswith("sqlite") else None
        self.shipper = Shipper(folder.spool, profile.tracking_uri, artifacts=artifacts)
        self.shipper.start()
        self._waiting: dict[SeatName, SeatOrder] = {}
        """Trials that have had no place in a pack yet."""
        self._placed: dict[SeatName, SeatOrder] = {}
        """Trials that have had one, and have not ended."""

    def study_started(self, plan: Plan, study: Study, data: StudyData) -> None:
        """Open the parent run, with what it takes to repeat the study."""
        self._tracker.study_started(
            study.name,
            experiment=plan.spec.experiment,
            run_name=f"{plan.run_id}/{study.name}",
            tags={
                "mlflow.user": who(),
                "mlflow.source.name": plan.run_id,
                "tunery.run": plan.run_id,
                "tunery.task": study.task,
                "tunery.method": study.tuner.method,
                "tunery.base": study.model.id,
                "tunery.data_fingerprint": data.fingerprint,
            },
            params={
                **{path: str(value) for path, value in flatten(_settings(study)).items()},
                "train_rows": str(data.train_rows),
                "train_tokens": str(data.train_tokens),
                "eval_rows": str(data.eval_rows),
                "skipped_rows": str(len(data.skipped)),
                **({"data_notes": "; ".join(data.notes)} if data.notes else {}),
            },
            files={
                "spec.json": plan.spec.model_dump_json(indent=1).encode(),
                "plan.json": plan.model_dump_json(indent=1).encode(),
                "environment.json": json.dumps(environment(), indent=1).encode(),
            }
            | ({"skipped_rows.txt": "\n".join(data.skipped).encode()} if data.skipped else {}),
            at_ms=_now_ms(),
        )

    def record(self, event: Event) -> None:
        """One event of the desk."""
        match event:
            case Joined(order, _):
                self._waiting[order.name] = order
            case Seated(name, _, at_ms):
                self._started(name, at_ms)
            case Reported(name, report):
                self._report(name, report)
            case Left(name, ending, reason, at_ms):
                self._ended(name, ending, reason, at_ms)
            case _:
                pass  # nothing that MLflow keeps

    def recall(self, known: Known, reports: Iterable[Report]) -> None:
        """A trial that had ended before this driver began: what is not in the spool of it yet."""
        at_ms = _now_ms()
        self._tracker.trial_started(
            known.name.study, known.name.number, params=known.draw, tags=_draw_tags(known), at_ms=at_ms
        )
        for report in reports:
            self._report(known.name, report)
        self._ended(known.name, known.ending, "", at_ms)

    def trial_stopped(self, study: str, number: int) -> None:
        self._ended(SeatName(study, number), "stopped", "the run was asked to stop", _now_ms())

    def study_ended(self, study: str, status: Status) -> None:
        self._tracker.study_ended(study, status=status, at_ms=_now_ms())

    def adapter(self, name: SeatName, folder: Path) -> None:
        """Keep a trial's adapter among its artifacts."""
        self._tracker.artifacts(name.study, name.number, folder, "adapter", _now_ms())

    def summary(self, study: str, metrics: Mapping[str, float], *, step: int) -> None:
        """The best trial's metrics, on the study's own run."""
        self._tracker.metrics(study, None, metrics, step=step, at_ms=_now_ms())

    def report(self, study: str, folder: Path) -> None:
        """Keep the run's report among the artifacts of a study's own run."""
        self._tracker.artifacts(study, None, folder, "report", _now_ms())

    def close(self, give_up: Callable[[], bool] | None = None) -> str:
        """Ship what is left; see `Shipper.drain`. '' when all is in MLflow, else what stands in the way."""
        shipped = self.shipper.drain(LAST_SHIPMENT_S, give_up=give_up)
        self.shipper.close()
        self._tracker.close()
        if self._events is not None:
            self._events.close()
        return "" if shipped else self.shipper.problem or "MLflow did not take it in time"

    def _report(self, name: SeatName, report: Report) -> None:
        values = {**report.metrics, "best_objective": report.objective}
        self._tracker.metrics(name.study, name.number, values, step=report.step, at_ms=report.at_ms)
        if self._events is not None:
            self._events.metrics(name, values, step=report.step, at_ms=report.at_ms)

    def _started(self, name: SeatName, at_ms: int) -> None:
        """It has a place, its first one or another: what it waited for that is not its own time."""
        again = name in self._placed
        order = self._placed[name] if again else self._waiting.pop(name)
        params = flatten(json.loads(order.trial))
        self._tracker.trial_started(name.study, name.number, params=params, tags=_draw_tags(order), at_ms=at_ms)
        if self._events is not None and not again:
            self._events.started(name, params)
        self._placed[name] = order

    def _ended(self, name: SeatName, ending: Ending, reason: str, at_ms: int) -> None:
        if name in self._waiting:
            self._started(name, at_ms)
        self._placed.pop(name, None)
        tags = {"tunery.ending": ending} | ({"tunery.reason": reason[:5000]} if reason else {})
        self._tracker.trial_ended(name.study, name.number, status=STATUSES[ending], at_ms=at_ms, tags=tags)
        if self._events is not None:
            self._events.ended(name)


def known_reports(folder: RunFolder, name: SeatName) -> list[Report]:
    """The reports of a trial, from its newest checkpoint."""
    checkpoint = CheckpointStore(folder.checkpoints(name.study, name.number)).newest()
    return read_reports(checkpoint.read(REPORTS)) if checkpoint else []


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Nested settings as dotted paths; a list becomes one text."""
    flat: dict[str, Value] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, list | tuple):
            flat[path] = ", ".join(map(str, value))
        else:
            flat[path] = value
    return flat


def _settings(study: Study) -> dict[str, Any]:
    return {"tuner": study.tuner.model_dump(mode="json"), "train": study.train.model_dump(mode="json")}


def environment() -> dict[str, object]:
    """What a run ran on."""
    packages = {dist.name: dist.version for dist in importlib.metadata.distributions()}
    return {
        "python": sys.version,
        "platform": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _draw_tags(trial: SeatOrder | Known) -> dict[str, str]:
    tags = {"tunery.draw": json.dumps(dict(trial.draw), sort_keys=True), "tunery.origin": trial.origin or "sampler"}
    return tags if trial.rerun_of is None else tags | {"tunery.rerun_of": str(trial.rerun_of)}


def _now_ms() -> int:
    return int(time.time() * 1000)
