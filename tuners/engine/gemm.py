"""The base's matrix products, where nearly all of the time goes."""

# T rows, I in, O out

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def _by_onednn() -> bool:
    """Whether float32 on a CPU goes through oneDNN: where torch would take MKL on a processor that is not Intel's.

    MKL leaves the AVX-512 units of AMD's idle (92 against 200 GF/s a core of an EPYC); on Intel's own it is the faster
    one (by 8 to 37 % on a Xeon). It goes by the maker and is not timed: both compute in float32, but round apart, and a
    run's digits must not hang on what else a machine had to do when a process began.
    """
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
    mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    maker = str(torch.cpu.get_capabilities().get("cpu_name", ""))
    return onednn and mkl and not maker.startswith("Intel")


_ONEDNN = _by_onednn()


def library(device: torch.device, dtype: torch.dtype) -> Literal["oneDNN", "torch's"]:
    """What multiplies there."""
    return "oneDNN" if _ONEDNN and device.type == "cpu" and dtype == torch.float32 else "torch's"


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """[T, O] = x W^T + b, by whichever library is the faster one on this processor."""
    if library(x_TI.device, x_TI.dtype) == "oneDNN":
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, bias_O, "none", [], "")
        return out
    return functional.linear(x_TI, weight_OI, bias_O)


def back(g_TO: Tensor, weight_OI: Tensor) -> Tensor:
    """[T, I] = g W, the gradient of x."""
    return linear(g_TO, weight_OI.t(), None)


def outer(g_TO: Tensor, x_TI: Tensor) -> Tensor:
    """[O, I] = g^T x, the gradient of W."""
    return linear(g_TO.t(), x_TI.t(), None)


def add_outer(sum_OI: Tensor, g_TO: Tensor, x_TI: Tensor) -> None:
    """Adds g^T x to a gradient of W, in the product's own pass over it where the library can."""
    if sum_OI.dtype == g_TO.dtype and library(g_TO.device, g_TO.dtype) != "oneDNN":
        sum_OI.addmm_(g_TO.t(), x_TI)
    else:
        sum_OI.add_(outer(g_TO, x_TI))


def native_dtype(device: torch.device) -> Literal["float32", "bfloat16"]:
    """bfloat16 where the device multiplies in it (half the memory, twice the rate), else float32.

    What is trained stays in float32 either way. A CPU without the instructions computes bfloat16 far slower.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"
