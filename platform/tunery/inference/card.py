"""`tunery.json`: what an adapter folder says about itself. Loads neither torch nor MLflow.

<folder>/tunery.json                 this card
<folder>/adapter_config.json         PEFT's
<folder>/adapter_model.safetensors   the adapter and the head (merged folders: model.safetensors, config.json)
<folder>/tokenizer.json ...          the base's tokenizer
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.files import write_whole
from tunery.errors import InputError, NotFoundError
from tunery.tasks import Task
from tunery.tasks import get as catalogued
from tunery.tasks.custom import CustomTask

FILE = "tunery.json"
_OBJECTIVE, _VALUE, _DATA = "tunery.objective", "tunery.objective_value", "tunery.data_fingerprint"


class _Stored(BaseModel):
    # Read leniently: a newer tunery may have written more than this one knows.
    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True)
class Score:
    """One measurement of an adapter, with what makes it comparable to another."""

    objective: str
    value: float
    data_fingerprint: str
    """Of the evaluation rows it was measured on."""

    def comparable(self, other: Score) -> bool:
        """Whether both measure the same thing on the same rows."""
        return (self.objective, self.data_fingerprint) == (other.objective, other.data_fingerprint)

    def tags(self) -> dict[str, str]:
        return {_OBJECTIVE: self.objective, _VALUE: repr(self.value), _DATA: self.data_fingerprint}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Score | None:
        """The score a registered version was tagged with; None where it was not, or not with a number."""
        try:
            score = cls(tags[_OBJECTIVE], float(tags[_VALUE]), tags[_DATA])
        except (KeyError, ValueError):
            return None
        return None if math.isnan(score.value) else score


class BaseModelCard(_Stored):
    """The model beneath the adapter."""

    id: str
    """A hub id, a folder or `embedded:minilm` (see `storage.models`)."""
    revision: str | None = None
    source: Literal["hub", "modelscope"] = "hub"
    quantisation: Literal["none", "nf4", "nf4-double"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"

    @property
    def name(self) -> str:
        """As `ModelSpec.name`."""
        return self.id if self.source == "hub" else f"{self.source}:{self.id}"


class ObjectiveCard(_Stored):
    """The task's objective and what the adapter reached."""

    name: str
    value: float


class AskingCard(_Stored):
    """How a model that generates is asked."""

    form: Literal["chat", "plain"]
    template: str
    """Of a plain prompt."""
    max_new_tokens: int = Field(128, ge=1)
    """Of an answer."""


class SeedsCard(_Stored):
    """What its configuration gave when it was trained again with other seeds."""

    count: int
    mean: float
    deviation: float | None = None
    """Sample standard deviation; None for one seed."""


class AdapterCard(_Stored):
    """The card of one adapter."""

    task: str
    custom: CustomTask | None = None
    """The task, where the spec declared it."""
    kind: Literal["classification", "regression", "generation"]
    labels: tuple[str, ...] = ()
    """In the order of the head's outputs; of a classification only."""
    asking: AskingCard | None = None
    """Of a generation only."""
    base: BaseModelCard
    objective: ObjectiveCard
    seeds: SeedsCard | None = None
    """None where it was trained once."""
    direction: Literal["maximise", "minimise"] = "maximise"
    metrics: Mapping[str, float] = Field(default_factory=dict)
    data_fingerprint: str = ""
    """Of the evaluation rows; see `tunery.inference.evaluate`."""
    max_length: int = Field(128, ge=2)
    """Tokens after which an input was cut in training, and is cut here."""
    method: str = ""
    """The tuning method's name."""
    tuner: Mapping[str, Any] = Field(default_factory=dict)
    """Its configuration."""
    run_id: str = ""
    study: str = ""
    trial: int | None = None
    tunery: str = ""
    """The version that wrote it."""
    merged: bool = False
    """Whether the adapter is merged into the base, so that the folder is a whole model."""

    @property
    def definition(self) -> Task | None:
        """The task; None for one that this version does not know."""
        try:
            return self.custom.task(self.task) if self.custom else catalogued(self.task)
        except NotFoundError:
            return None

    @property
    def score(self) -> Score:
        return Score(self.objective.name, self.objective.value, self.data_fingerprint)

    def tags(self) -> dict[str, str]:
        """What is worth seeing beside a registered version; its score among it."""
        of = {"task": self.task, "method": self.method, "base": self.base.name, "run": self.run_id, "study": self.study}
        if self.trial is not None:
            of["trial"] = str(self.trial)
        if self.seeds is not None:
            of |= {"seeds": str(self.seeds.count), "objective_mean": repr(self.seeds.mean)}
            if self.seeds.deviation is not None:
                of["objective_deviation"] = repr(self.seeds.deviation)
        return {f"tunery.{name}": value for name, value in of.items() if value} | self.score.tags()

    def write(self, folder: Path) -> None:
        write_whole(folder / FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> AdapterCard:
        """NotFoundError where the folder has no card, InputError where it cannot be read."""
        try:
            return cls.model_validate_json((folder / FILE).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"{folder} holds no adapter of tunery: there is no {FILE}") from None
        except ValidationError as error:
            raise InputError(f"{folder / FILE} is not the card of an adapter: {error}") from error
