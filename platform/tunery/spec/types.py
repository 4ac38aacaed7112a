"""The spec: what a user writes, strict and frozen. `tunery.spec.load` reads it from a file."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, field_serializer

import tuners
from tuners.config import Frozen, TrainConfig, TunerConfig
from tunery.spec.space import Range, Value
from tunery.tasks.custom import CustomTask

API_VERSION = "tunery/v1"

if TYPE_CHECKING:
    AnyTuner = TunerConfig
else:
    AnyTuner = Annotated[
        functools.reduce(operator.or_, (tuners.config_class(name) for name in tuners.names())),
        Field(discriminator="method"),
    ]
"""The configuration of one of the methods under `tuners/`, told apart by `method`."""

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
"""Lower-case letters, digits, '.', '_' and '-': it becomes part of folder, run and model names."""
FolderText = Annotated[str, Field(min_length=1, max_length=4096)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
OverrideValue = Value | tuple[Value, ...]


class ModelSpec(Frozen):
    """The base model."""

    id: str = Field(min_length=1, max_length=4096)
    """A hub id (`Qwen/Qwen2.5-1.5B`), a local folder (`./model`, `/models/x`) or `embedded:minilm`."""
    source: Literal["hub", "modelscope"] = "hub"
    """Where a hub id is: the Hugging Face hub (or the mirror that HF_ENDPOINT names), or ModelScope."""
    revision: str | None = Field(None, min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._/-]+$")
    """A commit, tag or branch of the hub's repository; a commit is what stays the same."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen weights; auto: bfloat16 where the device computes in it, float32 elsewhere."""

    @property
    def name(self) -> str:
        """What tells it from every other model but its own revisions: the same id on two hubs may be two models."""
        return self.id if self.source == "hub" else f"{self.source}:{self.id}"


class DataSpec(Frozen):
    """Where the tasks' rows come from."""

    source: Literal["hub", "path", "embedded"] = "hub"
    """hub: the Hugging Face hub. path: files under `root`. embedded: generated here (task `acceptability`)."""
    root: FolderText | None = None
    """With `source: path`: the folder that holds a folder a task; relative to the spec's own folder."""
    max_train: Count | None = None
    """Most training rows used, drawn with `seed`; all by default."""
    max_eval: Count | None = None
    """Most evaluation rows used; all by default."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the rows drawn under `max_train` and `max_eval`, and of generated data."""
    deduplicate: bool = False
    """Leave out training rows whose text an earlier one has, or an evaluation row; they are counted either way."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """How tasks with answers put their questions; auto: in the model's chat format where it has one."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What to do with a row that cannot be read; skipped rows are counted and named in the log."""


class SamplerSpec(Frozen):
    """How the next trial's values are chosen."""

    name: Literal["tpe", "gp", "random", "grid"] = "tpe"
    """grid: every combination of the listed values once, in an order drawn with `seed`."""
    seed: int = Field(0, ge=0, lt=2**32)


class PrunerSpec(Frozen):
    """Which trials are ended before their last epoch."""

    name: Literal["asha", "median", "none"] = "asha"
    """median: ends a trial that is worse than the median of the others' means so far."""
    reduction: int = Field(3, ge=2, le=100)
    """ASHA goes on with one in `reduction` trials at each rung."""
    grace_epochs: int = Field(2, ge=1, le=10_000)
    """Epochs every trial may have. After one alone, a rate that warms up slowly is behind one that ends lower."""


class RerunSpec(Frozen):
    """The best configurations trained again with other seeds, since one run's score is partly luck."""

    seeds: int = Field(ge=1, le=100)
    """Further runs a configuration, each with a `train.seed` of its own."""
    top: int = Field(3, ge=1, le=100)
    """Configurations, of those that ran to their end."""


class SearchSpec(Frozen):
    """The search over hyperparameters, the same for every study unless overridden."""

    trials: int = Field(1, ge=1, le=100_000)
    """Trials a study, those of `rerun_best` not counted."""
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = PrunerSpec()
    space: Mapping[str, Range] = Field(default_factory=dict, max_length=100)
    """Dotted path of a `tuner` or `train` field -> the range it is drawn from."""
    warm_start: Literal["none", "registry"] = "none"
    """registry: after the spec's own values, the values of the champions for the same task on the same base."""
    rerun_best: RerunSpec | None = None

    @property
    def most_trials(self) -> int:
        """Trials a study with those of `rerun_best`; fewer where fewer configurations run to their end."""
        again = self.rerun_best
        return self.trials + (min(again.top, self.trials) * again.seeds if again else 0)


class Resources(Frozen):
    """What the packs take of the cluster."""

    packs: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Packs side by side; each holds the base once. auto: one for every `cpus_per_worker` cores where their memory is
    small beside the machine's, or as many as there are GPUs for."""
    workers: int = Field(1, ge=1, le=1024)
    """Workers a pack; the base is sharded over them."""
    gpus_per_worker: int = Field(0, ge=0, le=16)
    cpus_per_worker: int = Field(1, ge=1, le=1024)
    seats: int = Field(8, ge=1, le=1024)
    """Most trials that a pack trains at once."""
    gradient_checkpointing: bool = False
    """Compute a layer's activations again in its backward instead of keeping them: less memory, more time."""


class TrackingSpec(Frozen):
    """What tracked runs are filed under; where the tracker is, the profile says."""

    experiment: str | None = Field(None, min_length=1, max_length=200)
    """MLflow's experiment; the spec's name by default."""
    tensorboard: bool = False
    """Write TensorBoard's event files too, in the run's folder."""


class RegistrySpec(Frozen):
    """Under which name a study's best adapter is registered, and when it becomes the champion."""

    name: str = Field("{name}-{task}", min_length=1, max_length=200)
    """A template: {name} of the spec, {task}, {cell} of the matrix, {method} of the tuner."""
    alias: str = Field("champion", min_length=1, max_length=63, pattern=r"^[a-z][a-z0-9_-]*$")
    min_gain: float = Field(0.0, ge=0, le=1e9)
    """Least gain of the objective over the present champion for the alias to move."""


class Spec(Frozen):
    """One sweep: a model, tasks, a tuning method and what is searched."""

    model_config = ConfigDict(serialize_by_alias=True)

    api_version: Literal["tunery/v1"] = Field(alias="apiVersion")
    kind: Literal["Sweep"]
    name: Name
    model: ModelSpec
    tasks: tuple[str, ...] = Field(min_length=1, max_length=1000)
    """Names of the catalogue (`tunery.tasks`), and of `custom`."""
    custom: Mapping[Name, CustomTask] = Field(default_factory=dict, max_length=1000)
    """Tasks of one's own, by the names that `tasks` has them under."""
    data: DataSpec = DataSpec()
    tuner: AnyTuner
    train: TrainConfig = TrainConfig()
    """Fields that are left out take the task's own defaults, and then those named here."""
    search: SearchSpec = SearchSpec()
    overrides: Mapping[str, Mapping[str, OverrideValue]] = Field(default_factory=dict)
    """Task -> dotted path -> value, for that task only."""
    matrix: Mapping[str, tuple[OverrideValue, ...]] = Field(default_factory=dict, max_length=10)
    """Dotted path -> values; every task gets a study for each combination (a cell)."""
    resources: Resources = Resources()
    tracking: TrackingSpec = TrackingSpec()
    registry: RegistrySpec = RegistrySpec()

    @field_serializer("train", mode="wrap")
    def _only_what_was_set(self, train: TrainConfig, _: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A task's default stands in for a field that is left out, so "left out" must survive writing and reading.
        return train.model_dump(exclude_unset=True, mode="json")

    @property
    def experiment(self) -> str:
        """MLflow's experiment."""
        return self.tracking.experiment or self.name

    def normal_form(self) -> dict[str, Any]:
        """The spec as plain data with its defaults filled in: two specs that say the same have the same one."""
        plain: dict[str, Any] = json.loads(self.model_dump_json())
        return plain

    def digest(self) -> str:
        """sha256 of the normal form, in hex."""
        return hashlib.sha256(json.dumps(self.normal_form(), sort_keys=True).encode()).hexdigest()
