"""The end of a study: its best adapter becomes a registered version, and the gate decides about the alias."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from storage.checkpoints import CheckpointStore
from storage.registry import Registry, Version
from tunery.cluster.messages import SeatName, StudyData
from tunery.cluster.recorder import Recorder
from tunery.cluster.tracking.shipper import REFUSED
from tunery.errors import RunError, UnreachableError
from tunery.home import who
from tunery.inference.card import AdapterCard, Score, SeedsCard
from tunery.inference.gate import contest
from tunery.inference.trained import adapter_files, card_of, write_folder
from tunery.plan import Plan, Study
from tunery.profile import Profile
from tunery.runs import RunFolder, StudyState

SHIPMENT_S = 300.0
"""Within which MLflow must have taken something more, or a registration waits no longer for the trial's run."""


@dataclass(frozen=True)
class Outcome:
    """What became of a study's best adapter."""

    model: str
    version: str
    champion: bool
    verdict: str


@ray.remote(num_cpus=0, max_retries=1)
def measure(folder: Path, study: Study) -> float:
    """The objective of an adapter on a study's evaluation data; in a process of its own, since it loads torch."""
    from tunery.cluster.data import place_of
    from tunery.inference.evaluate import evaluate
    from tunery.inference.model import open_model
    from tunery.rows import evaluation_sets

    task = study.definition
    sets = evaluation_sets(task, place_of(study), limit=study.data.max_eval)
    certain = {split.name: sets[split.name] for split in task.eval_splits if not split.optional}
    objective: float = evaluate(open_model(folder), task, certain).objective
    return objective


@dataclass(frozen=True)
class Promoter:
    """Registers and promotes, for one run."""

    folder: RunFolder
    plan: Plan
    profile: Profile
    recorder: Recorder
    asked_to_stop: Callable[[], bool]

    def promote(self, study: Study, data: StudyData, state: StudyState) -> Outcome:
        """Register the best trial's adapter and let the gate decide.

        Raises UnreachableError where MLflow does not take the adapter in time, storage.errors.RegistryError where
        it refuses.
        """
        trial = next(trial for trial in state.trials if trial.number == state.best)
        assert trial.objective is not None
        name = SeatName(study.name, trial.number)
        score = Score(study.definition.objective_name, trial.objective, data.fingerprint)
        card = card_of(
            self.plan.run_id, study, state, trial, score=score, metrics=trial.metrics, form=data.form or None
        )
        adapter = self._adapter(name, data, card)
        self.recorder.adapter(name, adapter)
        self.recorder.summary(study.name, {**trial.metrics, **_over_seeds(card.seeds)}, step=trial.step)
        shipper = self.recorder.shipper
        if not shipper.drain(SHIPMENT_S, give_up=self.asked_to_stop):
            why = (
                "the run was asked to stop" if self.asked_to_stop() else shipper.problem or "MLflow takes nothing more"
            )
            raise UnreachableError(
                f"the adapter of {name} is not registered: {why}; it lies in {adapter}. "
                f"When MLflow answers again: platform resume {self.plan.run_id}"
            )
        run_id = self.recorder.shipper.run_id(study.name, trial.number)
        if run_id is None:
            raise RunError(
                f"MLflow has refused the run of trial {name}, so that its adapter, in {adapter}, cannot be registered; "
                f"what it said is in {self.folder.spool / REFUSED}"
            )
        registry = Registry(self.profile.tracking_uri)
        version = registry.register(study.registry_name, run_id=run_id, artifact_path="adapter", tags=card.tags())
        decision = contest(
            registry,
            version,
            card.score,
            alias=study.alias,
            direction=study.definition.direction,
            min_gain=study.min_gain,
            by=f"{who()} ({self.plan.run_id})",
            measure=lambda champion: self._measure(registry, champion, study, card.score),
        )
        return Outcome(version.model, version.version, decision.verdict == "promoted", decision.why)

    def _measure(self, registry: Registry, champion: Version, study: Study, candidate: Score) -> Score:
        """The champion's score on the candidate's data."""
        # In the run's folder, which all nodes see: this one may be a head that is not to compute.
        with tempfile.TemporaryDirectory(dir=self.folder.root) as scratch:
            folder = registry.download(champion, Path(scratch))
            value: float = ray.get(measure.remote(folder, study))
        return Score(candidate.objective, value, candidate.data_fingerprint)

    def _adapter(self, name: SeatName, data: StudyData, card: AdapterCard) -> Path:
        """The folder that is kept: PEFT's files from the best checkpoint, the tokenizer, the card."""
        best = CheckpointStore(self.folder.checkpoints(name.study, name.number)).best()
        if best is None:
            raise RunError(f"trial {name} has no checkpoint that can be read: nothing to register")
        target = self.folder.adapter(name.study, name.number)
        write_folder(target, adapter_files(best), data.tokenizer, card)
        return target


def _over_seeds(seeds: SeedsCard | None) -> dict[str, float]:
    """As metrics of the study's own run."""
    if seeds is None:
        return {}
    values = {"objective_mean": seeds.mean, "objective_deviation": seeds.deviation, "seeds": float(seeds.count)}
    return {name: value for name, value in values.items() if value is not None}
