"""The frozen base over several workers, with FSDP2: a layer's weights are whole only while it runs.

Nothing of the base is trained, so nothing of it is reduced; what seats train lies outside, in the bank.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def layers_of(backbone: nn.Module) -> nn.ModuleList:
    """The layers that follow each other."""
    return next(module for module in backbone.modules() if isinstance(module, nn.ModuleList))


def shard(backbone: nn.Module, mesh: DeviceMesh) -> None:
    """Leave each worker its share of every parameter, on the mesh's device; quantised ones too."""
    for layer in layers_of(backbone):
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    words = backbone.get_input_embeddings()  # type: ignore[operator]  # transformers' models have it
    embeddings = next(part for part in backbone.children() if words in part.modules())
    # Left to the root they would be whole throughout a step; and no backward reads them.
    fully_shard(embeddings, mesh=mesh, reshard_after_forward=True).set_unshard_in_backward(False)
    fully_shard(backbone, mesh=mesh, reshard_after_forward=True)


def local_tensors(module: nn.Module) -> list[Tensor]:
    """Of its parameters and buffers, what this worker has."""
    tensors = (*module.parameters(), *module.buffers())
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
