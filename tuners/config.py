"""How a seat is trained, whatever the method. Torch-free: the client validates specs with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Quantisation = Literal["none", "nf4", "nf4-double"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]


class Frozen(BaseModel):
    """Strict and immutable: unknown keys are errors, and a value is what it was at creation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TunerConfig(Frozen):
    """Base of every method's configuration (`tuners/<method>/config.py` names its class `Config`)."""

    method: str
    """The folder's name under `tuners/`."""

    train_defaults: ClassVar[Mapping[str, float]] = {}
    """Fields of `train` that a spec leaves out: what suits this method better than the usual."""

    weightless: ClassVar[frozenset[str]] = frozenset()
    """Fields that say nothing of what the trained weights are: a trial may begin with weights trained under others."""

    @property
    def quantisation(self) -> Quantisation:
        """How the frozen base is kept; seats share a pack only where it is the same."""
        return "none"

    @property
    def dequantised_once(self) -> bool:
        """Whether a quantised base is kept as its dequantised weights."""
        return False

    @property
    def trains_base(self) -> bool:
        """Whether the base's own weights are trained; then a pack holds one seat at a time."""
        return False

    @property
    def trains_beside(self) -> bool:
        """Whether what is trained is a network beside the base, which then only ever runs forward."""
        return False

    def side_parameters(self, *, layers: int, hidden: int, inner: int) -> int:  # noqa: ARG002  # a base's sizes
        """Of that network."""
        return 0

    def side_values(self, *, layers: int, hidden: int, inner: int) -> int:  # noqa: ARG002  # a base's sizes
        """That a token of that network keeps from forward to backward, by estimate."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """Of the base's states that a pack may keep, so that it need not run on the same example again."""
        return 0


class FourBits(TunerConfig):
    """Fields of the methods that keep the base in NF4."""

    double_quantisation: bool = True
    """Quantise the blocks' scales too."""
    dequantise: Literal["step", "once"] = "step"
    """step: the base stays in 4 bits, and a layer is dequantised each time it is used. once: at the start, for a base
    that fits; the same numbers, faster, in the memory of a base that is not quantised."""

    @property
    def quantisation(self) -> Quantisation:
        """NF4, with or without the second quantisation."""
        return "nf4-double" if self.double_quantisation else "nf4"

    @property
    def dequantised_once(self) -> bool:
        """`dequantise: once`."""
        return self.dequantise == "once"


class CheckpointConfig(Frozen):
    """What is kept of a seat to go on from, beside a checkpoint at each evaluation."""

    every_steps: int = Field(0, ge=0, le=1_000_000_000)
    """Optimiser steps between two further checkpoints; 0: none between evaluations."""
    keep: int = Field(2, ge=1, le=1000)
    """Newest checkpoints of a trial that are kept; the best one is kept beside them."""


class TrainConfig(Frozen):
    """The training loop of one seat."""

    learning_rate: float = Field(3e-4, gt=0, le=1e30)
    """Peak rate of AdamW. No sensible upper end is enforced: a rate that diverges is a failed trial, not a bad spec."""
    epochs: int = Field(3, ge=1, le=10_000)
    batch_size: int = Field(32, ge=1, le=65_536)
    """Examples an optimiser step (times `accumulation`)."""
    accumulation: int = Field(1, ge=1, le=4096)
    """Micro-batches an optimiser step: the effective batch is `batch_size * accumulation`."""
    max_length: int = Field(128, ge=2, le=131_072)
    """Tokens after which an input is cut (the longer text of a pair first)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the rate after the warm-up; linear and cosine end at 0."""
    warmup_ratio: float = Field(0.0, ge=0, lt=1)
    """Share of all steps over which the rate rises linearly from 0."""
    optimizer: Optimizer = "adamw"
    """8bit: AdamW's moments in 8 bits, but for biases, norms and weights of under 4096 values. paged: these in memory
    that a CUDA device shares with its host."""
    weight_decay: float = Field(0.0, ge=0, le=10)
    """AdamW's decoupled decay, on every trained weight that is not a bias."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest L2 norm of a seat's gradient."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Of the seat's own streams: initial weights, data order, dropout."""
    max_new_tokens: int = Field(128, ge=1, le=32_768)
    """Of an answer that an evaluation generates; for tasks that have answers."""
    evaluations_per_epoch: int = Field(1, ge=1, le=1000)
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Changes no result, only how much is trained again after a crash."""

    @property
    def quantises_moments(self) -> bool:
        """Whether AdamW's moments are in 8 bits."""
        return self.optimizer != "adamw"
