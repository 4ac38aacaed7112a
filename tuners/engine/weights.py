"""A backbone's own weights, for the seat that trains them: while it is there, the layers compute with its row.

The checkpoint's values stay where they are: the next seat begins with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from tuners.engine.linear import DenseWeight, PackedLinear


class _Place(NamedTuple):
    module: nn.Module
    attribute: str
    by_layer: bool
    """Whether the layer writes the gradient itself (a linear one does); autograd does it for the others."""


class Weights:
    """By the names that the checkpoint has them under."""

    def __init__(self, backbone: nn.Module) -> None:
        """After its linear layers have been wrapped."""
        self._places: dict[str, _Place] = {}
        for name, module in backbone.named_modules():
            if isinstance(module, DenseWeight):
                continue
            linear = isinstance(module, PackedLinear)
            if linear:
                self._places[f"{name}.weight"] = _Place(module.weight, "weight", by_layer=True)
            for own in module._parameters:
                if module._parameters[own] is not None:
                    self._places[f"{name}.{own}" if name else own] = _Place(module, own, by_layer=linear)
        self._pretrained = {name: self._at(place) for name, place in self._places.items()}
        self.lent = False
        self._copies: list[tuple[Tensor, Tensor]] = []
        """Where the base computes in another type: (what the layers read, the row's)."""

    @property
    def pretrained(self) -> Mapping[str, Tensor]:
        """The checkpoint's."""
        return self._pretrained

    def lend(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> None:
        """Compute with `theta`, and add to `gradient`."""
        self.lent = True
        self._copies = []
        for name, place in self._places.items():
            own = theta[name].detach()
            values = own.to(self._pretrained[name].dtype)
            if values is not own:
                self._copies.append((values, own))
            parameter = nn.Parameter(values, requires_grad=not place.by_layer)
            if isinstance(place.module, nn.Embedding):
                # Of the words that are there, not of the vocabulary; on a device such sums have no order of their own.
                place.module.sparse = own.device.type == "cpu"
            if not place.by_layer:
                parameter.register_post_accumulate_grad_hook(_adding_to(gradient[name]))  # type: ignore[no-untyped-call]
            setattr(place.module, place.attribute, parameter)

    def refresh(self) -> None:
        """The row has changed."""
        for values, own in self._copies:
            values.copy_(own)

    def take_back(self) -> None:
        """Compute with the checkpoint's again."""
        self.lent = False
        self._copies = []
        for name, place in self._places.items():
            setattr(place.module, place.attribute, self._pretrained[name])
            if isinstance(place.module, nn.Embedding):
                place.module.sparse = False

    @staticmethod
    def _at(place: _Place) -> nn.Parameter:
        found = getattr(place.module, place.attribute)
        assert isinstance(found, nn.Parameter)
        return found


def _adding_to(gradient: Tensor) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        found = parameter.grad
        assert found is not None
        if found.is_sparse:
            gradient.index_add_(0, found._indices()[0], found._values().to(gradient.dtype))
        else:
            gradient.add_(found)
        parameter.grad = None

    return add
