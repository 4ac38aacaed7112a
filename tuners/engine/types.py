"""What goes into the engine and what comes out of it."""

# T tokens, N examples, C classes

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tuners.config import Quantisation, TrainConfig, TunerConfig


class AnyExample(Protocol):
    """What the engine reads of an example."""

    @property
    def ids(self) -> NDArray[np.int32]: ...
    @property
    def types(self) -> NDArray[np.int8] | None: ...
    @property
    def label(self) -> float: ...


class Example(NamedTuple):
    """A tokenised input."""

    ids: NDArray[np.int32]
    """[T] token ids, special tokens included."""
    types: NDArray[np.int8] | None
    """[T] token types; None where the model has none."""
    label: float
    """The class's index, the value of a regression, or how many tokens the prompt has: the answer follows it."""


class Examples(Protocol):
    """A tokenised set; read by index, so that it may lie on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> AnyExample: ...
    @property
    def lengths(self) -> NDArray[np.int32]:
        """[N] tokens of each example."""


@dataclass(frozen=True)
class HeadSpec:
    """What a seat predicts."""

    kind: Literal["classification", "regression", "generation"]
    labels: tuple[str, ...] = ()
    """In the order of the logits; of a classification only."""
    stop: tuple[int, ...] = ()
    """Token ids at which an answer ends; of a generation only."""

    @property
    def outputs(self) -> int:
        """C, the logits of an example; 0 where they are the vocabulary's."""
        return {"classification": len(self.labels), "regression": 1, "generation": 0}[self.kind]


@dataclass(frozen=True)
class SeatSpec:
    """A trial as the engine sees it."""

    name: str
    tuner: TunerConfig
    train: TrainConfig
    head: HeadSpec
    train_set: Examples
    eval_sets: Mapping[str, Examples]
    """By the split's name."""


@dataclass(frozen=True)
class BaseSpec:
    """The model that a pack holds: frozen, unless `trained`."""

    folder: str
    """A local folder or a hub id."""
    revision: str | None = None
    quantisation: Quantisation = "none"
    dequantised_once: bool = False
    """Keep what a quantised weight is dequantised to, and not its 4 bits."""
    trained: bool = False
    """The one seat of the pack trains the weights themselves."""
    language: bool = False
    """Some seat generates: the model's own output layer is there too."""
    beside: bool = False
    """Seats train networks beside it: it runs forward only, without dropout, and once for all seats that read the same
    sequences."""
    kept_bytes: int = 0
    """Of its states that are kept, where seats train beside it."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """What is trained is in float32 beside the first two; all is in float64 where rounding must be told from faults."""
    published: str | None = None
    """The hub id, where `folder` is a copy on this machine: what an export calls its base, with `revision`."""


@dataclass(frozen=True)
class StepReport:
    """One optimiser step of one seat."""

    loss: float
    """Mean over the step's examples."""
    grad_norm: float
    """L2, before clipping."""
    learning_rate: float
    examples: int
    tokens: int
    diverged: str = ""
    """Why the seat was given up; empty while it is healthy."""


@dataclass(frozen=True)
class Progress:
    """Where a seat stands."""

    step: int
    """Optimiser steps done."""
    steps: int
    epoch: float
    evaluation_due: bool
    """The seat's cadence asks for an evaluation at this step, and none has been made."""
    finished: bool
    trainable: int
    """Parameters that this seat trains."""
    total: int
    """Those and the frozen base's."""


@dataclass(frozen=True)
class Evaluation:
    """A seat's outputs on one split, in the split's order."""

    logits: NDArray[np.float32]
    """[N, C]"""
    labels: NDArray[np.float64]
    """[N] class indices, values, or tokens of the prompts."""
    loss: float
    """Mean over the split's examples, or over the tokens of its answers."""
    answers: tuple[NDArray[np.int32], ...] = ()
    """[N] what was generated: token ids, without the one that ends it."""


if TYPE_CHECKING:
    _: AnyExample = Example(np.zeros(1, np.int32), None, 0.0)
