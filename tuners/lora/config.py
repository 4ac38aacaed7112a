"""LoRA (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from tuners.config import TunerConfig

ALL_LINEAR: Literal["all-linear"] = "all-linear"


def _no_dora(wanted: bool) -> bool:
    if wanted:
        raise ValueError(
            "false (DoRA cannot be packed: each trial would need the norms of its own whole weights; a higher rank, "
            "use_rslora or target_modules: all-linear come near it)"
        )
    return wanted


def _no_other_biases(wanted: str) -> str:
    if wanted == "all":
        raise ValueError(
            "'none' or 'lora_only' ('all' cannot be packed: the norms' biases belong to the base that trials share)"
        )
    return wanted


class Config(TunerConfig):
    """y = base(x) + scale * dropout(x) A^T B^T, with the base frozen."""

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=4096)
    alpha: float = Field(16, gt=0)
    """The update is scaled by alpha / rank."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the adapter's input only; the base keeps its own."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = ()
    """Last names of the linear layers that get an adapter; empty: the attention's query and value projections.
    all-linear: every one of the backbone."""
    modules_to_save: tuple[str, ...] = ()
    """Last names of linear layers that are trained whole instead. The head always is."""
    bias: Annotated[Literal["none", "lora_only", "all"], AfterValidator(_no_other_biases)] = "none"
    """lora_only: train the biases of the layers with an adapter too."""
    use_dora: Annotated[bool, AfterValidator(_no_dora)] = False
    """Refused: it cannot be packed."""

    weightless: ClassVar[frozenset[str]] = frozenset({"dropout"})

    @property
    def scale(self) -> float:
        """Of the update."""
        return self.alpha / (self.rank**0.5 if self.use_rslora else self.rank)
