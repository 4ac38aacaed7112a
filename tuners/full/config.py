"""Full fine-tuning: every weight of the base is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from tuners.config import TunerConfig


class Config(TunerConfig):
    """Nothing is frozen, so nothing can be shared: a pack trains one seat at a time."""

    method: Literal["full"] = "full"

    # What BERT's authors searched around (Devlin et al. 2018, arXiv 1810.04805): an adapter's rate ruins a base.
    train_defaults: ClassVar[Mapping[str, float]] = {"learning_rate": 2e-5}

    @property
    def trains_base(self) -> bool:
        """Always."""
        return True
