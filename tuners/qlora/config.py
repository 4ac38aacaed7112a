"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA on a base kept in 4-bit NF4."""

from __future__ import annotations

from typing import Literal

from tuners.config import Quantisation
from tuners.lora.config import Config as LoraConfig


class Config(LoraConfig):
    """LoRA's fields; the base's linear layers are quantised, the head is not."""

    method: Literal["qlora"] = "qlora"  # type: ignore[assignment]
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
