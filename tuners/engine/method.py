"""What a tuning method gives the engine: `tuners/<method>/layer.py` has `adapter(config, base) -> Adapter`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.slots import Slot

if TYPE_CHECKING:
    from tuners.engine.base import Base


@dataclass(frozen=True)
class Segment:
    """One trained tensor of a seat, a part of its row in the bank."""

    name: str
    """Unique in the seat, and stable: initial values are drawn by it, checkpoints hold it."""
    shape: tuple[int, ...]
    fill: Callable[[Tensor, torch.Generator], object]
    """Writes the initial values."""
    decay: bool = True
    """Whether weight decay applies."""

    @property
    def size(self) -> int:
        """Parameters."""
        return torch.Size(self.shape).numel()


class Adapter(Protocol):
    """What one seat trains in the backbone."""

    @property
    def segments(self) -> tuple[Segment, ...]: ...

    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:
        """By the layer's number; the tensors are views into the bank."""

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json's entries that are the method's own."""

    def peft_tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """adapter_model.safetensors' entries; `prefix` is the backbone's place in PEFT's model."""


def adapter_of(config: TunerConfig, base: Base) -> Adapter:
    """What `config` trains on `base`. Raises TunerError where it does not fit."""
    made: Adapter = importlib.import_module(f"tuners.{config.method}.layer").adapter(config, base)
    return made


def zeros(values: Tensor, _generator: torch.Generator) -> object:
    """[...] an initial value."""
    return values.zero_()


def normal(std: float) -> Callable[[Tensor, torch.Generator], object]:
    """An initial value drawn from N(0, std^2)."""
    return lambda values, generator: values.normal_(0.0, std, generator=generator)


def uniform(bound: float) -> Callable[[Tensor, torch.Generator], object]:
    """An initial value drawn from U(-bound, bound)."""
    return lambda values, generator: values.uniform_(-bound, bound, generator=generator)
