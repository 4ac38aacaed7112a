"""LoRA's mathematics at one layer for one seat, and what PEFT calls its parts."""

# T tokens of the seat, I in, O out, R rank

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.base import Base
from tuners.engine.gemm import back, linear
from tuners.engine.linear import PackedLinear
from tuners.engine.method import Adapter, Segment, uniform, zeros
from tuners.engine.slots import Kept, Slot, Slots
from tuners.engine.streams import apply_mask
from tuners.errors import TunerError
from tuners.lora.config import Config
from tuners.lora.grouped import GroupedLora


class LoraSlot:
    """y += scale * dropout(x) A^T B^T, with the backward written out: it is small, and adds to the bank's memory."""

    def __init__(
        self, a_RI: Tensor, b_OR: Tensor, ga_RI: Tensor, gb_OR: Tensor, *, scale: float, dropout: float
    ) -> None:
        self.a, self.b, self.ga, self.gb = a_RI, b_OR, ga_RI, gb_OR
        self.dropout = dropout
        self.scale = scale

    @classmethod
    def grouped(cls, slots: Sequence[tuple[int, LoraSlot]], seats: int) -> Slots:
        """In three products for all."""
        return GroupedLora(slots, seats)

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds to y; keeps h [T, R] and the mask."""
        x_TI = x_TI if keep_TI is None else apply_mask(x_TI, keep_TI)
        h_TR = linear(x_TI, self.a.to(x_TI.dtype), None).mul_(self._scale_of(keep_TI))
        y_TO.addmm_(h_TR, self.b.t().to(x_TI.dtype))
        return h_TR, keep_TI

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Adds to A's and B's gradients, and to x's."""
        h_TR, keep_TI = kept
        assert h_TR is not None
        x_TI = x_TI if keep_TI is None else apply_mask(x_TI, keep_TI)
        gh_TR = back(g_TO, self.b.to(g_TO.dtype)).mul_(self._scale_of(keep_TI))
        if self.gb.dtype == g_TO.dtype:
            self.gb.addmm_(g_TO.t(), h_TR)
            self.ga.addmm_(gh_TR.t(), x_TI)
        else:
            self.gb.add_(torch.mm(g_TO.t(), h_TR))
            self.ga.add_(torch.mm(gh_TR.t(), x_TI))
        if gx_TI is None:
            return
        if keep_TI is None:
            gx_TI.addmm_(gh_TR, self.a.to(g_TO.dtype))
        else:
            gx_TI.add_(apply_mask(torch.mm(gh_TR, self.a.to(g_TO.dtype)), keep_TI))

    def _scale_of(self, keep_TI: Tensor | None) -> float:
        return self.scale if keep_TI is None else self.scale / (1 - self.dropout)


class LoraAdapter(Adapter):
    """What one seat trains: A and B at each layer it targets, at its true rank."""

    def __init__(self, config: Config, base: Base) -> None:
        self._config = config
        self._targets = config.target_modules or base.family.targets
        self._sites = _matching(self._targets, base)
        self._excluded = tuple(name for name in base.other_linears if _matches(name, self._targets))
        for site in self._sites:
            _check_rank(config.rank, site)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """PEFT's initial values: A uniform as kaiming_uniform(a=sqrt(5)) has it, B zero."""
        found = []
        for site in self._sites:
            bound = 1 / math.sqrt(site.in_features)
            found.append(Segment(f"{site.name}.lora_A", (self._config.rank, site.in_features), uniform(bound)))
            found.append(Segment(f"{site.name}.lora_B", (site.out_features, self._config.rank), zeros))
        return tuple(found)

    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:
        """By the layer's number."""
        return {site.index: self._slot(site.name, theta, gradient) for site in self._sites}

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json's entries."""
        config: dict[str, Any] = {
            "peft_type": "LORA",
            "r": self._config.rank,
            # PEFT's own field is an integer where it can be.
            "lora_alpha": int(self._config.alpha) if float(self._config.alpha).is_integer() else self._config.alpha,
            "lora_dropout": self._config.dropout,
            "target_modules": sorted(self._targets),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }
        # PEFT matches by the end of a name in the whole model: leave out what lies outside the backbone's layers.
        return config | ({"exclude_modules": sorted(self._excluded)} if self._excluded else {})

    def tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """adapter_model.safetensors' entries."""
        return {f"{prefix}.{name}.weight": theta[name] for name in (segment.name for segment in self.segments)}

    def _slot(self, name: str, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> LoraSlot:
        a, b = f"{name}.lora_A", f"{name}.lora_B"
        scale, dropout = self._config.alpha / self._config.rank, self._config.dropout
        return LoraSlot(theta[a], theta[b], gradient[a], gradient[b], scale=scale, dropout=dropout)


def adapter(config: TunerConfig, base: Base) -> LoraAdapter:
    """What `config` trains on `base`. Raises TunerError where a target or the rank does not fit."""
    assert isinstance(config, Config)
    return LoraAdapter(config, base)


def _matches(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _matching(targets: tuple[str, ...], base: Base) -> list[PackedLinear]:
    known = sorted({name.rsplit(".", 1)[-1] for name in base.linears})
    for target in targets:
        if not any(_matches(name, (target,)) for name in base.linears):
            raise TunerError(f"target module {target!r} is no linear layer of this base; known: {', '.join(known)}")
    return [site for name, site in base.linears.items() if _matches(name, targets)]


def _check_rank(rank: int, site: PackedLinear) -> None:
    most = min(site.in_features, site.out_features)
    if rank > most:
        shape = f"{site.out_features} x {site.in_features}"
        raise TunerError(f"rank {rank} is above what {site.name} ({shape}) allows; at most {most} fits")
