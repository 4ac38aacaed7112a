"""From a spec to a plan: the studies, each with its full configuration, and what they will take."""

from __future__ import annotations

from collections.abc import Mapping

from tuners.config import Frozen, TrainConfig
from tunery.spec.space import Value
from tunery.spec.types import AnyTuner, DataSpec, ModelSpec, SearchSpec, Spec


class TrialConfig(Frozen):
    """All of one trial's settings."""

    tuner: AnyTuner
    train: TrainConfig


class Study(Frozen):
    """One task in one matrix cell: its own search, its own best, its own registered model."""

    name: str
    """The task's name, or `<task>-<cell>`; unique in the plan and fit for a folder's name."""
    task: str
    cell: Mapping[str, Value]
    """Matrix path -> this study's value (a list's items joined by '+')."""
    model: ModelSpec
    data: DataSpec
    tuner: AnyTuner
    train: TrainConfig
    search: SearchSpec
    registry_name: str
    alias: str
    min_gain: float

    def trial(self, draw: Mapping[str, Value]) -> TrialConfig:
        """The study's configuration with the drawn values in place, validated again. SpecError where one is wrong."""
        raise NotImplementedError

    def default_draw(self) -> dict[str, Value]:
        """The study's own values of the drawn paths, where they lie in the range."""
        raise NotImplementedError


class Estimate(Frozen):
    """What a study will take. None: unknown."""

    study: str
    train_rows: int | None
    eval_rows: int | None
    tokens_per_epoch: int | None
    """Training tokens, without padding."""
    tokens: int | None
    """Training tokens of all trials if none is pruned and each draws the most epochs: an upper bound."""
    base_bytes: int | None
    """The frozen base in memory, once a pack."""
    seat_bytes: int | None
    """Adapter and head of the largest rank with gradients and AdamW's state, a seat; activations not included."""


class Plan(Frozen):
    """What will be run. `Plan.model_validate_json(plan.model_dump_json()) == plan`."""

    run_id: str
    spec: Spec
    studies: tuple[Study, ...]
    estimates: tuple[Estimate, ...]
    """One a study, in the same order."""


def compile_plan(spec: Spec) -> Plan:
    """The plan of a spec. SpecError where a range's end or a combination cannot be trained."""
    raise NotImplementedError
