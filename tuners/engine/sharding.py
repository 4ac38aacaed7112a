"""The frozen base over several workers, with FSDP2: a layer's weights are whole only while it runs.

Nothing of the base is trained, so nothing of it is reduced; what seats train lies outside, in the bank.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """The layers that follow each other."""
    return next(module for module in backbone.modules() if isinstance(module, nn.ModuleList))


def shard(backbone: nn.Module, mesh: DeviceMesh) -> None:
    """Leave each worker its share of every parameter, on the mesh's device; quantised ones too."""
    layers = layers_of(backbone)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    for part in backbone.children():
        # The embeddings: left to the root they would be whole throughout a step.
        if layers not in part.modules() and any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=True)


def held_bytes(module: nn.Module) -> int:
    """Of the parameters and buffers in this worker's memory."""
    tensors = (*module.parameters(), *module.buffers())
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum({values.untyped_storage().data_ptr(): values.untyped_storage().nbytes() for values in local}.values())
