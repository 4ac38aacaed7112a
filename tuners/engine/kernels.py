"""Which of several ways a device computes attention and adapters: chosen once, by trying."""

# T tokens, H heads, K key heads, D elements a head

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grouped_mm, scaled_dot_product_attention

_TOLERANCE = 2e-2
"""Between two ways in 16 bits, for values of about 1."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernels:
    """The ways that were chosen."""

    attention: Literal["buckets", "varlen"]
    """buckets: dense attention over sequences of about the same length. varlen: torch's attention over sequences that
    lie end to end; where the model drops attention out, buckets are taken all the same, for the seats' own masks."""
    adapters: Literal["loop", "grouped"]
    """loop: one seat after the other. grouped: products for all seats."""
    why: str
    """In a few words."""


@functools.cache
def kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """For what is computed on `device` in `dtype`."""
    if device.type != "cuda":
        return Kernels("buckets", "loop", "on a CPU a launch costs nothing, and copies and other shapes do")
    if dtype not in (torch.bfloat16, torch.float16):
        return Kernels("buckets", "loop", f"the device's kernels for sequences end to end take no {dtype}")
    attention = _tried("varlen attention", _varlen_works, device, dtype)
    adapters = _tried("grouped products", _grouped_works, device, dtype)
    return Kernels(
        "buckets" if attention else "varlen",
        "loop" if adapters else "grouped",
        "; ".join(filter(None, [attention, adapters])) or "tried, and right",
    )


def varlen(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    cuts: Tensor,
    longest: int,
    *,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """[T, H, D] attention within each sequence; fewer key heads are shared by the heads.

    `cuts` (int32, from 0 to T) bounds the sequences, `longest` is the tokens of the longest.
    """
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        query_THD,
        key_TKD,
        value_TKD,
        cuts,
        cuts,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query_THD.shape[1] != key_TKD.shape[1],
    )
    assert isinstance(out, Tensor)
    return out


def _tried(
    name: str, works: Callable[[torch.device, torch.dtype], float], device: torch.device, dtype: torch.dtype
) -> str:
    """What is wrong with a way here; empty if it gives what the plain one gives."""
    try:
        difference = works(device, dtype)
    except (RuntimeError, ImportError) as error:
        # Not passed over: it decides between two ways that give the same, is logged, and `platform doctor` shows it.
        reason = f"{name} cannot be used here: {str(error).partition(chr(10))[0] or type(error).__name__}"
    else:
        if difference <= _TOLERANCE:
            return ""
        reason = f"{name} is wrong here by {difference:.3g}"
    _log.warning("%s", reason)
    return reason


def _varlen_works(device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference, of results and gradients, from one sequence at a time."""
    draw = torch.Generator(device).manual_seed(0)
    drawn = [torch.randn(48, heads, 64, device=device, generator=draw).to(dtype) for heads in (4, 2, 2)]
    bounds = [0, 16, 21, 48]
    cuts = torch.tensor(bounds, dtype=torch.int32, device=device)

    def end_to_end(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return varlen(q, k, v, cuts, 27, causal=True, scale=None)

    def one_by_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for low, high in pairwise(bounds):
            one_q, one_k, one_v = (x[low:high].transpose(0, 1)[None] for x in (q, k, v))
            out = scaled_dot_product_attention(one_q, one_k, one_v, is_causal=True, enable_gqa=True)
            parts.append(out[0].transpose(0, 1))
        return torch.cat(parts)

    found = []
    for way in (end_to_end, one_by_one):
        q, k, v = (x.clone().requires_grad_() for x in drawn)
        out = way(q, k, v)
        found.append([out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))])
    return max(float((a.float() - b.float()).abs().max()) for a, b in zip(*found, strict=True))


def _grouped_works(device: torch.device, dtype: torch.dtype) -> float:
    """The largest difference from one product at a time."""
    draw = torch.Generator(device).manual_seed(0)
    x = torch.randn(48, 64, device=device, generator=draw).to(dtype)
    w = (torch.randn(2, 64, 16, device=device, generator=draw) / 8).to(dtype)
    ends = torch.tensor([16, 48], dtype=torch.int32, device=device)
    y = grouped_mm(x, w, offs=ends)
    by_group = grouped_mm(x.t(), y, offs=ends)
    expected = torch.cat([x[:16] @ w[0], x[16:] @ w[1]])
    back = torch.stack([x[:16].t() @ y[:16], x[16:].t() @ y[16:]])
    differences = (y.float() - expected.float(), (by_group.float() - back.float()) / 8)
    return max(float(each.abs().max()) for each in differences)
