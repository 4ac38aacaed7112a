"""LoRA's mathematics at one layer for one seat, and what PEFT calls its parts."""

# T tokens of the seat, I in, O out, R rank

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.base import Base
from tuners.engine.gemm import add_outer, back, linear
from tuners.engine.linear import PackedLinear
from tuners.engine.method import Adapter, Segment, copied, uniform, zeros
from tuners.engine.slots import Kept, OneByOne, Slot, Slots
from tuners.engine.streams import apply_mask
from tuners.errors import TunerError
from tuners.lora.config import ALL_LINEAR, Config
from tuners.lora.grouped import GroupedLora


@dataclass(frozen=True)
class Bias:
    """A layer's bias, as a seat has it."""

    own: Tensor
    """[O]"""
    frozen: Tensor
    """[O] the base's, which is in y already."""
    gradient: Tensor
    """[O]"""

    def add_to(self, y_TO: Tensor) -> None:
        """In place."""
        y_TO.add_((self.own - self.frozen).to(y_TO.dtype))

    def learn_from(self, g_TO: Tensor) -> None:
        """Adds to the gradient."""
        self.gradient.add_(g_TO.sum(0, dtype=self.gradient.dtype))


class LoraSlot:
    """y += scale * dropout(x) A^T B^T, with the backward written out: it is small, and adds to the bank's memory."""

    keeps: ClassVar[int] = 2

    def __init__(
        self,
        a_RI: Tensor,
        b_OR: Tensor,
        ga_RI: Tensor,
        gb_OR: Tensor,
        *,
        scale: float,
        dropout: float,
        bias: Bias | None = None,
    ) -> None:
        self.a, self.b, self.ga, self.gb = a_RI, b_OR, ga_RI, gb_OR
        self.dropout = dropout
        self.scale = scale
        self.bias = bias

    @classmethod
    def grouped(cls, slots: Sequence[tuple[int, LoraSlot]], seats: int) -> Slots:
        """In three products for all."""
        return GroupedLora(slots, seats)

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Adds to y; keeps h [T, R] and the mask."""
        x_TI = x_TI if keep_TI is None else apply_mask(x_TI, keep_TI)
        h_TR = linear(x_TI, self.a.to(x_TI.dtype), None).mul_(self._scale_of(keep_TI))
        y_TO.addmm_(h_TR, self.b.t().to(x_TI.dtype))
        if self.bias is not None:
            self.bias.add_to(y_TO)
        return h_TR, keep_TI

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:
        """Adds to A's and B's gradients, and to x's."""
        h_TR, keep_TI = kept
        assert h_TR is not None
        if self.bias is not None:
            self.bias.learn_from(g_TO)
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


class WholeSlot:
    """A layer that one seat trains whole: its rows are multiplied by a weight of its own instead of the base's."""

    keeps: ClassVar[int] = 0
    dropout = 0.0

    def __init__(self, own: tuple[Tensor, Tensor | None], gradient: tuple[Tensor, Tensor | None]) -> None:
        """Weight [O, I] and bias [O]."""
        self.weight, self.bias = own
        self.gweight, self.gbias = gradient

    @classmethod
    def grouped(cls, slots: Sequence[tuple[int, WholeSlot]], seats: int) -> Slots:  # noqa: ARG003
        """One by one: few seats do this, at few layers."""
        return OneByOne(slots)

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> Kept:  # noqa: ARG002
        """Overwrites y."""
        bias = None if self.bias is None else self.bias.to(x_TI.dtype)
        y_TO.copy_(linear(x_TI, self.weight.to(x_TI.dtype), bias))
        return ()

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:  # noqa: ARG002
        """Adds to the gradients, and overwrites x's."""
        add_outer(self.gweight, g_TO, x_TI)
        if self.gbias is not None:
            self.gbias.add_(g_TO.sum(0, dtype=self.gbias.dtype))
        if gx_TI is not None:
            gx_TI.copy_(back(g_TO, self.weight.to(g_TO.dtype)))


class LoraAdapter(Adapter):
    """What one seat trains: A and B at each layer it targets, at its true rank, and what else it is told to."""

    def __init__(self, config: Config, base: Base) -> None:
        self._config = config
        self._targets = _targets(config, base)
        self._sites = _matching(self._targets, base)
        self._whole = _whole(config, base, self._sites)
        if base.group.size > 1 and (self._whole or self._biased):
            raise TunerError("modules_to_save and bias need the base's own weights, of which each worker has a part")
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
        found += [
            Segment(f"{site.name}.base_layer.bias", tuple(site.bias.shape), copied(site.bias), decay=False)
            for site in self._biased
        ]
        for site in self._whole:
            weight = site.weight.dense()
            found.append(Segment(f"{site.name}.weight", tuple(weight.shape), copied(weight)))
            if site.bias is not None:
                found.append(Segment(f"{site.name}.bias", tuple(site.bias.shape), copied(site.bias), decay=False))
        return tuple(found)

    @property
    def _biased(self) -> list[PackedLinear]:
        return [site for site in self._sites if site.bias is not None] if self._config.bias == "lora_only" else []

    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:
        """By the layer's number."""
        found: dict[int, Slot] = {site.index: self._slot(site, theta, gradient) for site in self._sites}
        for site in self._whole:
            weight, bias = f"{site.name}.weight", f"{site.name}.bias"
            own, slope = ((values[weight], values.get(bias)) for values in (theta, gradient))
            found[site.index] = WholeSlot(own, slope)
        return found

    def export_config(self) -> dict[str, Any]:
        """adapter_config.json's entries."""
        config: dict[str, Any] = {
            "peft_type": "LORA",
            "r": self._config.rank,
            # PEFT's own field is an integer where it can be.
            "lora_alpha": int(self._config.alpha) if float(self._config.alpha).is_integer() else self._config.alpha,
            "lora_dropout": self._config.dropout,
            "target_modules": sorted(self._targets),
            "use_rslora": self._config.use_rslora,
            "bias": self._config.bias,
            "modules_to_save": [site.name for site in self._whole],
            "fan_in_fan_out": False,
            "init_lora_weights": True,
        }
        # PEFT matches by the end of a name in the whole model: leave out what lies outside the backbone's layers.
        return config | ({"exclude_modules": sorted(self._excluded)} if self._excluded else {})

    def tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """adapter_model.safetensors' entries."""
        # A and B are layers of PEFT's, and their weights are what is kept.
        return {
            f"{prefix}.{name}{'.weight' if name.endswith(('lora_A', 'lora_B')) else ''}": theta[name]
            for name in (segment.name for segment in self.segments)
        }

    def _slot(self, site: PackedLinear, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> LoraSlot:
        a, b, bias = f"{site.name}.lora_A", f"{site.name}.lora_B", f"{site.name}.base_layer.bias"
        own = Bias(theta[bias], site.bias, gradient[bias]) if bias in theta else None
        return LoraSlot(
            theta[a],
            theta[b],
            gradient[a],
            gradient[b],
            scale=self._config.scale,
            dropout=self._config.dropout,
            bias=own,
        )


def adapter(config: TunerConfig, base: Base) -> LoraAdapter:
    """What `config` trains on `base`. Raises TunerError where a target or the rank does not fit."""
    assert isinstance(config, Config)
    return LoraAdapter(config, base)


def _targets(config: Config, base: Base) -> tuple[str, ...]:
    if config.target_modules == ALL_LINEAR:
        whole = {name.rsplit(".", 1)[-1] for name in config.modules_to_save}
        return tuple(sorted({name.rsplit(".", 1)[-1] for name in base.linears} - whole))
    return tuple(config.target_modules) or base.family.targets


def _whole(config: Config, base: Base, adapted: Sequence[PackedLinear]) -> list[PackedLinear]:
    """The layers that are trained whole; what the head has of them is trained anyway."""
    named = tuple(name for name in config.modules_to_save if name not in base.family.saved)
    if named and base.spec.quantisation != "none":
        raise TunerError(
            f"modules_to_save: {', '.join(named)} cannot be trained whole on a base in 4 bits: use method lora"
        )
    found = _matching(named, base) if named else []
    twice = [site.name for site in found if site in adapted]
    if twice:
        raise TunerError(f"{twice[0]} is in target_modules and in modules_to_save: it can have one of the two")
    return found


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
