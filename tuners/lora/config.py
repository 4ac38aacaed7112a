"""LoRA (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuners.config import TunerConfig


class Config(TunerConfig):
    """y = base(x) + alpha / rank * dropout(x) A^T B^T, with the base frozen."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=4096)
    alpha: float = Field(16, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the adapter's input only; the base keeps its own."""
    target_modules: tuple[str, ...] = ()
    """Last names of the linear layers that get an adapter; empty: the attention's query and value projections."""
