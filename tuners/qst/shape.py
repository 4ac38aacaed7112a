"""How large a side network is. Torch-free: a plan counts with it."""

from __future__ import annotations

from dataclasses import dataclass

_MULTIPLE = 8
"""Of every width: kernels want it."""
_HEAD = 32
"""Features of an attention head, about."""


@dataclass(frozen=True)
class Shape:
    """Networks of one shape run together."""

    layers: int
    hidden: int
    """I, of the base."""
    width: int
    """W"""
    inner: int
    """F"""
    heads: int
    """H"""
    rank: int
    """R; 0 where states are pooled."""

    @classmethod
    def of(cls, *, layers: int, hidden: int, inner: int, reduction: int, rank: int) -> Shape:
        """Beside a base of these sizes; rank 0 for pooling."""
        width = _rounded(hidden / reduction)
        # A head's width is such a multiple too.
        heads = next(count for count in range(max(1, width // _HEAD), 0, -1) if width % (count * _MULTIPLE) == 0)
        return cls(layers, hidden, width, _rounded(inner / reduction), heads, rank)

    @property
    def parameters(self) -> int:
        """Without the head."""
        width = self.width
        down = (self.layers + 1) * self.rank * (self.hidden + width)
        layer = 4 * width * width + 3 * self.inner * width + 2 * width + 1
        return down + self.layers * layer + width + self.hidden * width + 1

    @property
    def kept_values(self) -> int:
        """That a token keeps from forward to backward, by estimate.

        Of a layer: its states normed, for the wide factor; and what its sums, norms, products and attention read.
        """
        down = (self.layers + 1) * (self.hidden + self.rank) if self.rank else 0
        return down + self.layers * (16 * self.width + 4 * self.inner)


def _rounded(size: float) -> int:
    return max(1, round(size / _MULTIPLE)) * _MULTIPLE
