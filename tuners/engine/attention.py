"""Attention over sequences that lie end to end: none sees another.

Registered once under a name of ours; it keeps no state, since every attention module of a packed backbone carries the
`Context` of its base.
"""

# T tokens, M places in the buckets, H heads, K key heads, D elements a head, N sequences of a bucket, L its length

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from tuners.engine.context import Context
from tuners.engine.kernels import varlen
from tuners.engine.layout import Bucket
from tuners.engine.rows import padded, unpadded
from tuners.engine.streams import keep_attention, masked
from tuners.errors import TunerError

NAME = "tunery_packed"
_CONTEXT, _SITE = "packed_context", "packed_site"


def prepare(backbone: nn.Module, context: Context) -> None:
    """Give each attention module its context and its site."""
    for site, module in enumerate(backbone.modules()):
        if hasattr(module, "is_causal"):
            setattr(module, _CONTEXT, context)
            setattr(module, _SITE, site)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]."""
    context = getattr(module, _CONTEXT)
    assert isinstance(context, Context)
    assert attention_mask is None
    context.called(None)
    layout, causal = context.layout, bool(module.is_causal)
    _, heads, tokens, size = query.shape
    if sliding_window is not None and layout.longest > sliding_window:
        raise TunerError(f"a sequence of {layout.longest} tokens is above the model's window of {sliding_window}")
    if context.varlen and not dropout:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return varlen(q, k, v, layout.cuts, layout.longest_run, causal=causal, scale=scaling)[None], None
    flat = torch.cat([x.transpose(1, 2).reshape(tokens, -1) for x in (query, key, value)], 1)
    parts = torch.split(padded(flat, layout), [bucket.count * bucket.length for bucket in layout.buckets])
    outputs = []
    for bucket, part in zip(layout.buckets, parts, strict=True):
        q, k, v = (
            x.view(bucket.count, bucket.length, -1, size).transpose(1, 2)
            for x in torch.split(part, _widths(query, key), 1)
        )
        if dropout:
            keys = context.row_keys.index_select(0, bucket.sequences)
            keep = keep_attention(keys, _site(module), heads, bucket.length, dropout)
            out = _with_dropout(q, k, v, bucket, keep, dropout, scaling, causal)
        else:
            k, v = _repeated(k, heads), _repeated(v, heads)
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=bucket.mask, is_causal=causal, scale=scaling
            )
        outputs.append(out.transpose(1, 2).reshape(bucket.count * bucket.length, heads * size))
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return unpadded(joined, layout).view(1, tokens, heads, size), None


def _site(module: nn.Module) -> int:
    site = getattr(module, _SITE)
    assert isinstance(site, int)
    return site


def _widths(query: Tensor, key: Tensor) -> list[int]:
    wide, narrow = query.shape[1] * query.shape[3], key.shape[1] * key.shape[3]
    return [wide, narrow, narrow]


def _repeated(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _with_dropout(
    q: Tensor, k: Tensor, v: Tensor, bucket: Bucket, keep: Tensor, p: float, scaling: float | None, causal: bool
) -> Tensor:
    """q [N, H, L, D], k and v [N, K, L, D], keep [N, H, L, L] -> [N, H, L, D]: dropout on the probabilities."""
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    scores = torch.matmul(q * (q.shape[-1] ** -0.5 if scaling is None else scaling), k.transpose(2, 3))
    if bucket.mask is not None:
        scores = scores.masked_fill(~bucket.mask, float("-inf"))
    if causal:
        later = torch.ones(bucket.length, bucket.length, dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    return torch.matmul(masked(scores.softmax(-1), keep, p), v)


AttentionInterface.register(NAME, packed_attention)
