"""The roof: the base's matrix products of one step and nothing else, as fast as the machine does them."""

# T rows, I in, O out

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.steps import flops
from benchmarks.steps.flops import Batch, Linear
from tuners.engine.gemm import linear


def synchronise(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Roof:
    """Weights of every layer, dense, in the base's dtype, each read as often as a step reads it.

    The products are the engine's own calls (`tuners.engine.gemm`: oneDNN for float32 on a CPU, else torch's), the
    fastest that are known; or, for comparison, what torch takes by itself.
    """

    def __init__(
        self,
        layers: Sequence[Linear],
        forward: Batch,
        *,
        dtype: torch.dtype,
        device: torch.device,
        torchs: bool = False,
    ) -> None:
        """`forward`: what one forward of a step reads, a step being one or several."""
        self._layers, self._device = layers, device
        self._linear = functional.linear if torchs else linear
        self.flops = flops.linears(layers, forward)
        self._weights = [torch.randn(la.outputs, la.inputs, dtype=dtype, device=device) for la in layers]
        self._rows = [max(1, round(la.rows(forward.tokens, forward.sequences))) for la in layers]
        self._inputs: dict[tuple[int, int], Tensor] = {}
        for layer, rows in zip(layers, self._rows, strict=True):
            for width in (layer.inputs, layer.outputs):
                self._inputs.setdefault((rows, width), torch.randn(rows, width, dtype=dtype, device=device))

    def run(self) -> float:
        """Seconds of one forward and its backward."""
        synchronise(self._device)
        began = time.perf_counter()
        with torch.no_grad():
            for layer, rows, weight_OI in zip(self._layers, self._rows, self._weights, strict=True):
                self._linear(self._inputs[rows, layer.inputs], weight_OI, None)
            for layer, rows, weight_OI in reversed(list(zip(self._layers, self._rows, self._weights, strict=True))):
                if layer.backward:
                    self._linear(self._inputs[rows, layer.outputs], weight_OI.t(), None)
        synchronise(self._device)
        return time.perf_counter() - began
