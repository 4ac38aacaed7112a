"""Gradient checkpointing: a layer keeps its input only, and is computed again in its backward.

The same bits come out, dropout included: masks are functions of their place in the step (`streams`), not draws.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tuners.engine.context import Context


def recompute(layers: Iterable[nn.Module], context: Context) -> None:
    """Have these layers computed again in a backward."""
    for layer in layers:
        # On the module itself, inside its hooks: FSDP2's gather the weights once for both, the layer and its backward.
        setattr(layer, "forward", _recomputed(layer.forward, context))  # noqa: B010  # mypy: a method is no variable


def _recomputed(forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        layout, slots = context.layout, context.slots

        def again(*args: Any, **kwargs: Any) -> Any:
            with context.recalled(layout, slots):
                return forward(*args, **kwargs)

        return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
