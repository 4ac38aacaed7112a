"""The course of a seat: its steps, its learning rate, its evaluations. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuners.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """Derived from the configuration and the number of examples."""

    train: TrainConfig
    examples: int
    """In the training set."""

    @property
    def batch(self) -> int:
        """Examples an optimiser step; the last of an epoch may have fewer."""
        return self.train.batch_size * self.train.accumulation

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps."""
        return math.ceil(self.examples / self.batch)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.train.epochs * self.steps_per_epoch

    @property
    def warmup(self) -> int:
        """Steps over which the rate rises."""
        return math.ceil(self.train.warmup_ratio * self.steps)

    def learning_rate(self, step: int) -> float:
        """Of the update that follows `step` updates."""
        peak = self.train.learning_rate
        if step < self.warmup:
            return peak * step / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.train.schedule == "linear":
            return peak * max(0.0, 1 - share)
        if self.train.schedule == "cosine":
            return peak * max(0.0, 0.5 * (1 + math.cos(math.pi * share)))
        return peak

    def evaluation_at(self, step: int) -> bool:
        """Whether the cadence asks for one after `step` updates; always at an epoch's end."""
        if step == 0:
            return False
        done = (step - 1) % self.steps_per_epoch + 1
        cadence = self.train.evaluations_per_epoch
        return done * cadence // self.steps_per_epoch > (done - 1) * cadence // self.steps_per_epoch

    def batch_bounds(self, step: int) -> tuple[int, int, int]:
        """(epoch, first, last + 1): which slice of the epoch's order the update after `step` updates takes."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch, within * self.batch, min(self.examples, (within + 1) * self.batch)
