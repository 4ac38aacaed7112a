"""Quantised side tuning of one seat: its network's parameters lie in its row of the bank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.base import Base
from tuners.engine.method import Adapter, Segment, leaf
from tuners.engine.slots import Side, Slot
from tuners.errors import TunerError
from tuners.qst.config import Config
from tuners.qst.network import SideNetwork, segments


class SideAdapter(Adapter):
    """A network beside the base; trained with plain autograd, which ends at the base's states."""

    form = "side"

    def __init__(self, config: Config, base: Base) -> None:
        own = base.config
        hidden = int(own.hidden_size)
        if config.down == "low-rank" and config.down_rank > hidden:
            raise TunerError(f"down_rank {config.down_rank} is above the {hidden} features of this base")
        self._config = config
        self._shape = config.shape(
            layers=int(own.num_hidden_layers),
            hidden=hidden,
            inner=int(getattr(own, "intermediate_size", 4 * hidden)),
        )

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of the network."""
        return segments(self._shape)

    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:  # noqa: ARG002
        """None: the base's layers are left alone."""
        return {}

    def side(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> Side:
        """On the bank's own memory."""
        parameters = {each.name: leaf(theta[each.name], gradient[each.name]) for each in self.segments}
        return SideNetwork(self._shape, parameters)

    def export_config(self) -> dict[str, Any]:
        """What the network is made again from."""
        return {"tuner": self._config.model_dump(mode="json"), "shape": asdict(self._shape)}

    def tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:  # noqa: ARG002  # not the base's
        """By the network's own names."""
        return {f"side.{segment.name}": theta[segment.name] for segment in self.segments}


def adapter(config: TunerConfig, base: Base) -> SideAdapter:
    """What `config` trains beside `base`. Raises TunerError where it does not fit."""
    assert isinstance(config, Config)
    return SideAdapter(config, base)
