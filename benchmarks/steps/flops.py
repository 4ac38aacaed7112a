"""Floating-point operations of an optimiser step: those that the mathematics needs, on real tokens only.

    linear layer     2 I O a row forward, and 2 I O for the input's gradient; the frozen weight has none. No gradient
                     is passed to the embeddings, so the layers that read them directly have the forward only. After the
                     last attention only the pooled token of each sequence is a row.
    adapter          2 R (I + O) a row forward, twice that backward (the gradients of A and B, and of the input)
    attention        4 L^2 W a sequence and layer forward (scores, and their product with the values), twice that
                     backward; half of all where a token sees only those before it

    T tokens, N sequences, L tokens of a sequence, I in, O out, R rank, W = heads x size of a head

Left out: the embeddings, norms, activations, dropout, heads, the dequantisation of a 4-bit base, the optimiser.
Filler tokens and padding in buckets count as time and not as work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Linear:
    """One linear layer of the base."""

    inputs: int
    outputs: int
    pooled_only: bool
    """Whether its rows are sequences instead of tokens."""
    backward: bool
    """Whether a gradient is passed through it."""
    adapted: bool
    """Whether seats train an adapter here."""

    def rows(self, tokens: float, sequences: float) -> float:
        """Of the two, what this layer computes."""
        return sequences if self.pooled_only else tokens


@dataclass(frozen=True)
class Attention:
    """All attention layers of the base."""

    layers: int
    width: int
    """Heads times the size of a head."""
    causal: bool


@dataclass(frozen=True)
class Batch:
    """What one optimiser step of all seats reads."""

    tokens: float
    sequences: float
    squares: float
    """Sum of the squared lengths."""


def linears(layers: Sequence[Linear], batch: Batch) -> float:
    """Of the frozen base's products alone: what the bare GEMM does too."""
    return sum(
        2.0 * layer.inputs * layer.outputs * (1 + layer.backward) * layer.rows(batch.tokens, batch.sequences)
        for layer in layers
    )


def adapters(layers: Sequence[Linear], batch: Batch, *, rank: int) -> float:
    """Of all seats' adapters, which have this rank."""
    return sum(
        6.0 * rank * (layer.inputs + layer.outputs) * layer.rows(batch.tokens, batch.sequences)
        for layer in layers
        if layer.adapted
    )


def attention(shape: Attention, batch: Batch) -> float:
    """Of all attention layers."""
    return 12.0 * shape.layers * shape.width * batch.squares * (0.5 if shape.causal else 1.0)


def step(layers: Sequence[Linear], shape: Attention, batch: Batch, *, rank: int) -> float:
    """Of one optimiser step of all seats."""
    return linears(layers, batch) + adapters(layers, batch, rank=rank) + attention(shape, batch)
