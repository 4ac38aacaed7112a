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
from tuners.engine.plain_attention import SHORT, Dropout, plain_attention
from tuners.engine.rows import padded, unpadded
from tuners.engine.streams import pair_keys
from tuners.errors import TunerError

NAME = "tunery_packed"
# Measured on an EPYC with AVX-512 and bfloat16, forward and backward: in bfloat16 torch's attention takes 1.5 to 12
# times as long up to 128 tokens; in float32 the two cross at about 40.
_PLAIN = {torch.float32: 40}
"""Tokens up to which attention that forms its probabilities is the faster one on a CPU, where not `SHORT`."""
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
    if sliding_window is not None and context.layout.longest > sliding_window:
        longest = context.layout.longest
        raise TunerError(f"a sequence of {longest} tokens is above the model's window of {sliding_window}")
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    causal = bool(module.is_causal)
    return attend(context, _site(module), query, key, value, causal=causal, scale=scale, dropout=dropout), None


def attend(
    context: Context,
    site: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """The same at a site of the forward that runs: query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]."""
    layout, cache = context.layout, context.cache
    _, heads, tokens, size = query.shape
    if cache is not None:
        if not cache.prompts:
            return cache.attend(site, query, key, value, scale)
        cache.hold(site, key, value)
    if context.varlen and not dropout:
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return varlen(q, k, v, layout.cuts, layout.longest_run, causal=causal, scale=scale)[None]
    flat = torch.cat([x.transpose(1, 2).reshape(tokens, -1) for x in (query, key, value)], 1)
    parts = torch.split(padded(flat, layout), [bucket.count * bucket.length for bucket in layout.buckets])
    outputs = []
    for bucket, part in zip(layout.buckets, parts, strict=True):
        q, k, v = (
            x.view(bucket.count, bucket.length, -1, size).transpose(1, 2)
            for x in torch.split(part, _widths(query, key), 1)
        )
        k, v = _repeated(k, heads), _repeated(v, heads)
        if not dropout and _fused(bucket, q):
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bucket.mask, is_causal=causal, scale=scale)
        else:
            drawn = None
            if dropout:
                drawn = Dropout(pair_keys(context.row_keys.index_select(0, bucket.sequences), site, heads), dropout)
            out = plain_attention(
                q, k, v, lengths=bucket.lengths, mask=bucket.mask, causal=causal, scale=scale, dropout=drawn
            )
        outputs.append(out.transpose(1, 2).reshape(bucket.count * bucket.length, heads * size))
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return unpadded(joined, layout).view(1, tokens, heads, size)


def _site(module: nn.Module) -> int:
    site = getattr(module, _SITE)
    assert isinstance(site, int)
    return site


def _widths(query: Tensor, key: Tensor) -> list[int]:
    wide, narrow = query.shape[1] * query.shape[3], key.shape[1] * key.shape[3]
    return [wide, narrow, narrow]


def _repeated(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def _fused(bucket: Bucket, query: Tensor) -> bool:
    """Whether torch's own attention is the faster one for a bucket without dropout."""
    if query.device.type != "cpu":
        return True
    return bucket.length > _PLAIN.get(query.dtype, SHORT)


AttentionInterface.register(NAME, packed_attention)
