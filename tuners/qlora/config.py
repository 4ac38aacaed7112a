"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): LoRA on a base kept in 4-bit NF4."""

from __future__ import annotations

from typing import ClassVar, Literal

from tuners.config import FourBits
from tuners.lora.config import Config as LoraConfig


class Config(FourBits, LoraConfig):
    """LoRA's fields; the base's linear layers are quantised, the head is not."""

    method: Literal["qlora"] = "qlora"  # type: ignore[assignment]

    weightless: ClassVar[frozenset[str]] = LoraConfig.weightless | {"dequantise"}
