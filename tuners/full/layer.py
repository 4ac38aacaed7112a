"""Full fine-tuning of one seat: the base's layers run on the seat's row of the bank."""

# T tokens of the seat, I in, O out

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from tuners.config import TunerConfig
from tuners.engine.base import Base
from tuners.engine.gemm import add_outer
from tuners.engine.method import Adapter, Segment, copied
from tuners.engine.slots import Kept, OneByOne, Slot, Slots
from tuners.errors import TunerError


class FullSlot:
    """The gradient of a linear layer's own weight and bias, which are the seat's while it is there."""

    keeps: ClassVar[int] = 0
    dropout = 0.0

    def __init__(self, gw_OI: Tensor, gb_O: Tensor | None) -> None:
        self.gw, self.gb = gw_OI, gb_O

    @classmethod
    def grouped(cls, slots: Sequence[tuple[int, FullSlot]], seats: int) -> Slots:  # noqa: ARG003  # there is one seat
        """One by one: there is one."""
        return OneByOne(slots)

    def forward(self, x_TI: Tensor, y_TO: Tensor, keep_TI: Tensor | None) -> Kept:  # noqa: ARG002
        """Nothing to add: the layer has multiplied by the seat's weight."""
        return ()

    def backward(self, kept: Kept, x_TI: Tensor, g_TO: Tensor, gx_TI: Tensor | None) -> None:  # noqa: ARG002
        """Adds to the weight's and the bias's gradients."""
        add_outer(self.gw, g_TO, x_TI)
        if self.gb is not None:
            self.gb.add_(g_TO.sum(0, dtype=self.gb.dtype))


class FullAdapter(Adapter):
    """All weights of the backbone, by their own names; they begin as they are in the checkpoint."""

    form = "model"

    def __init__(self, base: Base) -> None:
        if base.weights.lent:
            raise TunerError("another seat trains this base's weights")
        self._base = base

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Biases and the norms' weights do not decay, as is usual."""
        return tuple(
            Segment(name, tuple(values.shape), copied(values), decay=values.dim() > 1)
            for name, values in self._base.weights.pretrained.items()
        )

    def slots(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> dict[int, Slot]:
        """By the layer's number; from now on the base computes with `theta`."""
        self._base.weights.lend(theta, gradient)
        return {
            site.index: FullSlot(gradient[f"{name}.weight"], gradient.get(f"{name}.bias"))
            for name, site in self._base.linears.items()
        }

    def updated(self) -> None:
        """A base in bfloat16 computes with a copy."""
        self._base.weights.refresh()

    def leave(self) -> None:
        """The base is what it was."""
        self._base.weights.take_back()

    def export_config(self) -> dict[str, Any]:
        """Nothing: the model's own says it all."""
        return {}

    def tensors(self, theta: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """By their names in the whole model."""
        return {f"{prefix}.{segment.name}": theta[segment.name] for segment in self.segments}


def adapter(config: TunerConfig, base: Base) -> FullAdapter:  # noqa: ARG001  # it has no settings
    """What a seat trains on `base`: everything. Raises TunerError while another one does."""
    return FullAdapter(base)
