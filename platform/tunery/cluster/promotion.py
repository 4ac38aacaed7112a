"""The end of a study: its best adapter becomes a registered version, and the gate decides about the alias."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ray

from storage.checkpoints import CheckpointStore
from storage.registry import Registry, Version
from tuners.config import TrainConfig
from tunery import __version__
from tunery.cluster.messages import SeatName, StudyData
from tunery.cluster.recorder import Recorder
from tunery.cluster.reports import REPORTS, STATE
from tunery.errors import RunError, UnreachableError
from tunery.home import who
from tunery.inference.card import AdapterCard, AskingCard, BaseModelCard, ObjectiveCard, Score, SeedsCard
from tunery.inference.gate import contest
from tunery.plan import Plan, Study
from tunery.profile import Profile
from tunery.runs import RunFolder, StudyState, TrialState
from tunery.standings import standing_of
from tunery.tasks import Task

SHIPMENT_S = 300.0
"""What a registration waits for the trial's run and artifacts to be in MLflow."""


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

    def promote(self, study: Study, data: StudyData, state: StudyState) -> Outcome:
        """Register the best trial's adapter and let the gate decide.

        Raises UnreachableError where MLflow does not take the adapter in time, storage.errors.RegistryError where
        it refuses.
        """
        trial = next(trial for trial in state.trials if trial.number == state.best)
        assert trial.objective is not None
        name = SeatName(study.name, trial.number)
        seeds = _seeds(study, state)
        card = self._card(study, data, trial, trial.objective, seeds)
        adapter = self._adapter(name, data, card)
        self.recorder.adapter(name, adapter)
        self.recorder.summary(study.name, {**trial.metrics, **_over_seeds(seeds)}, step=trial.step)
        if not self.recorder.shipper.drain(SHIPMENT_S):
            raise UnreachableError(
                f"the adapter of {name} is not registered: {self.recorder.shipper.problem}; it lies in {adapter}. "
                f"When MLflow answers again: platform resume {self.plan.run_id}"
            )
        run_id = self.recorder.shipper.run_id(study.name, trial.number)
        assert run_id is not None
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
        with tempfile.TemporaryDirectory() as scratch:
            folder = registry.download(champion, Path(scratch))
            value: float = ray.get(measure.remote(folder, study))
        return Score(candidate.objective, value, candidate.data_fingerprint)

    def _adapter(self, name: SeatName, data: StudyData, card: AdapterCard) -> Path:
        """The folder that is kept: PEFT's files from the best checkpoint, the tokenizer, the card."""
        best = CheckpointStore(self.folder.checkpoints(name.study, name.number)).best()
        if best is None:
            raise RunError(f"trial {name} has no checkpoint that can be read: nothing to register")
        target = self.folder.adapter(name.study, name.number)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(data.tokenizer, target)
        for file in best.names:
            if file not in (STATE, REPORTS):
                (target / file).write_bytes(best.read(file))
        card.write(target)
        return target

    def _card(
        self, study: Study, data: StudyData, trial: TrialState, objective: float, seeds: SeedsCard | None
    ) -> AdapterCard:
        task = study.definition
        config = study.trial(trial.config)
        return AdapterCard(
            task=task.name,
            custom=study.custom,
            kind=task.kind,
            labels=task.labels,
            asking=_asking(task, data, config.train),
            base=BaseModelCard(
                id=study.model.id,
                revision=study.model.revision,
                source=study.model.source,
                quantisation=study.tuner.quantisation,
                dtype=study.model.dtype,
            ),
            objective=ObjectiveCard(name=task.objective_name, value=objective),
            seeds=seeds,
            direction=task.direction,
            metrics=trial.metrics,
            data_fingerprint=data.fingerprint,
            max_length=config.train.max_length,
            method=config.tuner.method,
            tuner=config.tuner.model_dump(mode="json"),
            merged=config.tuner.trains_base,
            run_id=self.plan.run_id,
            study=study.name,
            trial=trial.number,
            tunery=__version__,
        )


def _asking(task: Task, data: StudyData, train: TrainConfig) -> AskingCard | None:
    """How the model was asked in training."""
    if not data.form:
        return None
    return AskingCard(form=data.form, template=task.template, max_new_tokens=train.max_new_tokens)


def _seeds(study: Study, state: StudyState) -> SeedsCard | None:
    """What the best trial's configuration gave with other seeds; None where it was not trained again."""
    found = standing_of(state, state.best, direction=study.definition.direction)
    if found is None or found.mean is None:
        return None
    return SeedsCard(count=len(found.runs), mean=found.mean, deviation=found.deviation)


def _over_seeds(seeds: SeedsCard | None) -> dict[str, float]:
    """As metrics of the study's own run."""
    if seeds is None:
        return {}
    values = {"objective_mean": seeds.mean, "objective_deviation": seeds.deviation, "seeds": float(seeds.count)}
    return {name: value for name, value in values.items() if value is not None}
