"""Quantised side tuning (Zhang et al. 2024, arXiv 2401.07159): a small network beside a base kept in 4-bit NF4."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tuners.config import FourBits, Quantisation
from tuners.qst.shape import Shape


class Config(FourBits):
    """The base runs forward only; a side network reads the states of its layers and is trained."""

    method: Literal["qst"] = "qst"
    reduction: int = Field(16, ge=1, le=1024)
    """The side network is narrower than the base by this factor."""
    down: Literal["low-rank", "pooling"] = "low-rank"
    """How a layer's states come into the side network: by two trained factors, or by a mean over neighbouring
    features, which trains nothing."""
    down_rank: int = Field(16, ge=1, le=4096)
    """Of the two factors."""
    quantise: bool = True
    """False: keep the base as it is, for one that fits."""
    kept_mib: int = Field(1024, ge=0)
    """Of the base's states that a pack keeps, in MiB: the base does not run on such an example again."""

    weightless: ClassVar[frozenset[str]] = frozenset({"dequantise", "kept_mib"})

    @property
    def quantisation(self) -> Quantisation:
        """NF4, unless told not to."""
        return super().quantisation if self.quantise else "none"

    @property
    def dequantised_once(self) -> bool:
        """Of a base in 4 bits only."""
        return self.quantise and super().dequantised_once

    def shape(self, *, layers: int, hidden: int, inner: int) -> Shape:
        """Of the network beside a base of these sizes."""
        rank = self.down_rank if self.down == "low-rank" else 0
        return Shape.of(layers=layers, hidden=hidden, inner=inner, reduction=self.reduction, rank=rank)

    def side_parameters(self, *, layers: int, hidden: int, inner: int) -> int:
        """Without the head."""
        return self.shape(layers=layers, hidden=hidden, inner=inner).parameters

    def side_values(self, *, layers: int, hidden: int, inner: int) -> int:
        """That a token keeps from forward to backward."""
        return self.shape(layers=layers, hidden=hidden, inner=inner).kept_values

    @property
    def trains_beside(self) -> bool:
        """Always."""
        return True

    @property
    def kept_bytes(self) -> int:
        """`kept_mib`."""
        return self.kept_mib << 20
