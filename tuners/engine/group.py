"""The workers that hold one base together: what they tell each other, beside the base's own traffic."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

_T = TypeVar("_T")


class Group:
    """A worker on its own: there is nobody to agree with."""

    rank = 0
    size = 1

    def sum(self, values: Tensor) -> None:
        """In place, over all workers: one all-reduce."""

    def share(self, value: _T) -> _T:
        """What rank 0 gave. Small and picklable."""
        return value

    def gather(self, value: _T) -> list[_T]:
        """What each worker gave, by rank. Small and picklable."""
        return [value]


class Workers(Group):
    """The workers of torch's default process group; all of them call the same methods in the same order."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        # Plain objects go through the host's memory, wherever the tensors are, and past FSDP's queue.
        self._control = distributed.new_group(backend="gloo")

    def mesh(self, device: torch.device) -> DeviceMesh:
        """What the base is sharded over."""
        return init_device_mesh(device.type, (self.size,))

    def sum(self, values: Tensor) -> None:
        distributed.all_reduce(values)

    def share(self, value: _T) -> _T:
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0, group=self._control)
        shared: _T = box[0]
        return shared

    def gather(self, value: _T) -> list[_T]:
        boxes: list[Any] = [None] * self.size
        distributed.all_gather_object(boxes, value, group=self._control)
        return boxes
