"""QLoRA's adapters are LoRA's; what differs is how the base is kept (`tuners.engine.nf4`)."""

from __future__ import annotations

from tuners.lora.layer import adapter

__all__ = ["adapter"]
