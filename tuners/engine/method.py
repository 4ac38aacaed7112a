"""What a tuning method gives the engine: `tuners/<method>/layer.py` has `adapter(config, base) -> Adapter`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.slots import Side, Slot

if TYPE_CHECKING:
    from tuners.engine.base import Base


Form = Literal["adapter", "model", "side"]
"""PEFT's adapter, a whole model, or a network beside the base."""
Fill = Callable[[Tensor, torch.Generator], object]
"""Writes initial values."""


@dataclass(frozen=True)
class Segment:
    """One trained tensor of a seat, a part of its row in the bank."""

    name: str
    """Unique in the seat, and stable: initial values are drawn by it, checkpoints hold it."""
    shape: tuple[int, ...]
    fill: Fill
    decay: bool = True
    """Whether weight decay applies."""

    @property
    def size(self) -> int:
        """Parameters."""
        return torch.Size(self.shape).numel()


class Adapter(ABC):
    """What one seat trains: in the backbone's layers, or beside them."""

    form: ClassVar[Form] = "adapter"
    """Of its export."""

    @property
    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """In any order that stays the same."""

    @abstractmethod
    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:
        """By the layer's number; the tensors are views into the bank. Asked for again when the row has moved."""

    def side(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> Side | None:  # noqa: ARG002
        """The network beside the backbone, of a method that trains one; asked for as `slots` is."""
        return None

    def updated(self) -> None:  # noqa: B027  # most have nothing to do
        """The row has other values than before."""

    def leave(self) -> None:  # noqa: B027  # most have nothing to do
        """The seat gives its place up."""

    @abstractmethod
    def export_config(self) -> dict[str, Any]:
        """The entries of the exported configuration that are the method's own."""

    @abstractmethod
    def tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """What is exported, by its names there; `prefix` is the backbone's place in the model."""


def adapter_of(config: TunerConfig, base: Base) -> Adapter:
    """What `config` trains on `base`. Raises TunerError where it does not fit."""
    made: Adapter = importlib.import_module(f"tuners.{config.method}.layer").adapter(config, base)
    return made


def leaf(theta: Tensor, gradient: Tensor) -> Tensor:
    """A parameter in the bank's own memory: autograd adds to a gradient that is there already."""
    parameter = theta.detach().requires_grad_()
    parameter.grad = gradient
    return parameter


def zeros(values: Tensor, _generator: torch.Generator) -> object:
    """[...] an initial value."""
    return values.zero_()


def copied(values: Tensor) -> Fill:
    """An initial value that is given."""
    return lambda initial, _generator: initial.copy_(values)


def normal(std: float) -> Fill:
    """An initial value drawn from N(0, std^2)."""
    return lambda values, generator: values.normal_(0.0, std, generator=generator)


def uniform(bound: float) -> Fill:
    """An initial value drawn from U(-bound, bound)."""
    return lambda values, generator: values.uniform_(-bound, bound, generator=generator)
