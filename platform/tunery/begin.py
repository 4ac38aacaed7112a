"""What a checkpoint says of itself, and whether a trial can begin with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import tuners
from storage.checkpoints import Checkpoint
from storage.errors import StorageError
from tunery import tasks
from tunery.errors import InputError
from tunery.plan import Begin, Plan, Study, TrialConfig
from tunery.runs import OF
from tunery.spec import ModelSpec


class Origin(BaseModel):
    """The trial that a checkpoint is of."""

    # Stored data is read leniently.
    model_config = ConfigDict(extra="ignore", frozen=True)

    trial: str
    """RUN/STUDY/TRIAL."""
    model: str
    revision: str | None
    dtype: str
    kind: str
    """Of its task: classification, regression or generation."""
    labels: tuple[str, ...]
    train_set: str
    """Name of its training rows' token file: a hash of the rows, the tokenizer and the length they are cut at."""
    tuner: Mapping[str, Any]
    train: Mapping[str, Any]

    @classmethod
    def of(cls, trial: str, config: TrialConfig, task: tasks.Task, *, model: ModelSpec, train_set: str) -> Origin:
        """`model`: in a run, with its commit as the revision."""
        plain = config.model_dump(mode="json")
        return cls(
            trial=trial,
            model=model.name,
            revision=model.revision,
            dtype=model.dtype,
            kind=task.kind,
            labels=task.labels,
            train_set=train_set,
            tuner=plain["tuner"],
            train=plain["train"],
        )

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    def same_training(self, other: Origin) -> bool:
        """Whether a trial of the one configuration is, step for step, one of the other's."""

        def training(origin: Origin) -> dict[str, Any]:
            plain = origin.model_dump(exclude={"trial"})
            # What is kept of a trial does not change it.
            return plain | {"train": {name: value for name, value in origin.train.items() if name != "checkpoint"}}

        return training(self) == training(other)


@dataclass(frozen=True)
class Found:
    """A checkpoint that a user has named, whole."""

    name: str
    """RUN/STUDY/TRIAL@STEP, or its folder."""
    checkpoint: Checkpoint
    run: str = ""
    study: str = ""
    trial: int = 0
    """Where it lies, if in a run's own folder."""
    passed_over: tuple[str, ...] = ()
    """Newer ones that are damaged, each with what is wrong."""

    @property
    def origin(self) -> Origin:
        """InputError for one of an earlier version."""
        return origin_of(self.checkpoint, self.name)


def origin_of(checkpoint: Checkpoint, name: str) -> Origin:
    """What a checkpoint says of itself. InputError where it says nothing."""
    try:
        return Origin.model_validate_json(checkpoint.read(OF))
    except (StorageError, ValidationError) as error:
        raise InputError(
            f"checkpoint {name} does not say what it is of: another version of tunery wrote it; "
            f"only its own trial can go on from it, with `platform resume`"
        ) from error


def begun_with(plan: Plan, found: Found) -> Plan:
    """The plan with its trials beginning with this checkpoint. InputError, naming all, where it does not fit them."""
    faults = [f"  study {study.name}: {fault}" for study in plan.studies for fault in _faults(found.origin, study)]
    if faults:
        raise InputError("\n".join([f"checkpoint {found.name} does not fit this run's trials:", *faults]))
    return plan.model_copy(update={"begin": Begin(checkpoint=found.name, digest=found.checkpoint.digest)})


def _faults(origin: Origin, study: Study) -> Iterator[str]:
    drawn = {path.partition(".")[2]: found for path, found in study.search.space.items() if path.startswith("tuner.")}
    config = TrialConfig(tuner=study.tuner, train=study.train)
    mine = Origin.of(study.name, config, study.definition, model=study.model, train_set="")
    yield from misfits(origin, mine, but=drawn)
    for field, found in drawn.items():
        if field not in study.tuner.weightless and set(found.ends()) != {origin.tuner.get(field)}:
            yield (
                f"search.space draws tuner.{field} ({found.describe()}), and the checkpoint's is "
                f"{_text(origin.tuner.get(field))}: set tuner.{field} to that and take it out of the space"
            )


def misfits(origin: Origin, trial: Origin, *, but: Mapping[str, object] = {}) -> Iterator[str]:
    """Why a trial cannot have the checkpoint's weights. `but`: fields of the tuner that are looked at elsewhere."""
    for what in ("model", "revision"):
        there, here = getattr(origin, what), getattr(trial, what)
        # A plan need not say which revision; the run will find its commit, and this is asked again.
        if there != here and there is not None and here is not None:
            yield f"the checkpoint is of another base: its {what} is {_text(there)}, here it is {_text(here)}"
    there, here = origin.tuner.get("method"), trial.tuner["method"]
    if there != here:
        yield f"the checkpoint is of another method: {_text(there)}, here it is {_text(here)}"
    else:
        weightless = tuners.config_class(here).weightless
        for field in trial.tuner:
            there, here = origin.tuner.get(field), trial.tuner[field]
            if there != here and field not in weightless and field not in but:
                yield f"tuner.{field} is {_text(there)} in the checkpoint, here it is {_text(here)}"
    if (origin.kind, len(origin.labels)) != (trial.kind, len(trial.labels)):
        yield f"the checkpoint's head is of a {_head(origin)}, here it is of a {_head(trial)}"


def _head(origin: Origin) -> str:
    return f"{origin.kind} with {len(origin.labels)} labels" if origin.kind == "classification" else origin.kind


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if value is not None else "not set"
