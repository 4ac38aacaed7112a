"""A seat that generates: the base's own output layer, and the cross entropy of the answer's tokens.

The logits of all tokens are never there at once: with a vocabulary of 150,000 they would be 600 KB a token.
"""

# P tokens that are predicted, I in, V words

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tuners.engine.gemm import back, linear, outer
from tuners.engine.head import Judged
from tuners.engine.layout import Layout
from tuners.engine.method import Segment, copied, leaf
from tuners.engine.types import HeadSpec

CHUNK_BYTES = 32 << 20
"""Of the logits that are there at once."""
LOGITS = 3
"""Times as much is there at once at most: the logits as they come, in float32, and as probabilities."""
_GRID = 32
"""Rows of a product with the output layer are a multiple of it. oneDNN keeps memory for each new shape, which comes to
lie all over what a step frees: large tensors find no room there, and the process grows from step to step."""
NAME = "lm_head.weight"


class _CrossEntropy(torch.autograd.Function):
    """[P] of x W^T, a few rows at a time, with the gradients in the same pass where W is frozen."""

    @staticmethod
    def forward(ctx: Any, x_PI: Tensor, weight_VI: Tensor, targets_P: Tensor) -> Tensor:
        losses_P = x_PI.new_empty(x_PI.shape[0], dtype=_wide(x_PI.dtype))
        needs_x, needs_weight, _ = ctx.needs_input_grad
        gx_PI = torch.empty_like(x_PI) if needs_x and not needs_weight else None
        for rows in _chunks(x_PI.shape[0], weight_VI.shape[0]):
            count = rows.stop - rows.start
            log_pV = _log_probabilities(_filled(x_PI[rows]), weight_VI)
            losses_P[rows] = -log_pV[:count].gather(1, targets_P[rows, None])[:, 0]
            if gx_PI is not None:
                slope_pV = _slope(log_pV, targets_P[rows]).to(x_PI.dtype)
                gx_PI[rows] = back(slope_pV, weight_VI)[:count]
        ctx.save_for_backward(gx_PI, *((x_PI, weight_VI, targets_P) if needs_weight else ()))
        return losses_P

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        g_P1 = gradients[0][:, None]
        gx_PI, *rest = ctx.saved_tensors
        if gx_PI is not None:
            return gx_PI.mul_(g_P1.to(gx_PI.dtype)), None, None
        x_PI, weight_VI, targets_P = rest
        gx_PI, gw_VI = torch.empty_like(x_PI), torch.zeros_like(weight_VI)
        for rows in _chunks(x_PI.shape[0], weight_VI.shape[0]):
            count, x_pI = rows.stop - rows.start, _filled(x_PI[rows])
            slope_pV = _slope(_log_probabilities(x_pI, weight_VI), targets_P[rows]).mul_(_filled(g_P1[rows]))
            slope_pV = slope_pV.to(x_PI.dtype)
            gx_PI[rows] = back(slope_pV, weight_VI)[:count]
            gw_VI.add_(outer(slope_pV, x_pI))
        return gx_PI, gw_VI, None


def cross_entropy(x_PI: Tensor, weight_VI: Tensor, targets_P: Tensor) -> Tensor:
    """[P] in float32 (float64 for a base in float64): what each token's prediction costs."""
    out: Tensor = _CrossEntropy.apply(x_PI, weight_VI, targets_P)  # type: ignore[no-untyped-call]  # torch's apply is untyped
    return out


def _chunks(rows: int, words: int) -> Iterator[slice]:
    size = max(_GRID, CHUNK_BYTES // (4 * words) // _GRID * _GRID)
    return (slice(start, min(rows, start + size)) for start in range(0, rows, size))


def _filled(rows_pW: Tensor) -> Tensor:
    """With rows of zeros up to a size on the grid: in a gradient they count for nothing."""
    return functional.pad(rows_pW, (0, 0, 0, -len(rows_pW) % _GRID))


def _log_probabilities(x_pI: Tensor, weight_VI: Tensor) -> Tensor:
    return linear(x_pI, weight_VI, None).to(_wide(x_pI.dtype)).log_softmax(1)


def _slope(log_pV: Tensor, targets_p: Tensor) -> Tensor:
    """Of the loss by the logits."""
    slope_pV = log_pV.exp_()
    slope_pV[torch.arange(len(targets_p), device=targets_p.device), targets_p] -= 1
    return slope_pV


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class LanguageHead:
    """Frozen with the base. Where a seat trains the base it is trained too: as the words' embeddings where the model
    has them in common, else as a part of the seat's own."""

    answers = True
    saved: tuple[str, ...] = ()

    def __init__(self, spec: HeadSpec, weight: Callable[[], Tensor], *, own: bool) -> None:
        """`weight` gives [V, I] as it is now; `own`: the seat has one for itself, which begins as that."""
        self.spec = spec
        self._weight = weight
        self._own = own

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of a seat with an output layer of its own."""
        if not self._own:
            return ()
        initial = self._weight()
        return (Segment(NAME, tuple(initial.shape), copied(initial)),)

    def bind(self, theta: Mapping[str, Tensor], gradient: Mapping[str, Tensor]) -> None:
        """Train the bank's own memory."""
        if self._own:
            parameter = leaf(theta[NAME], gradient[NAME])
            self._weight = lambda: parameter

    def judge(self, layout: Layout, seat: int, pooled_PI: Tensor, labels_N: Tensor) -> Judged:  # noqa: ARG002
        """The losses of all tokens of the answers."""
        low, high = layout.read_spans[seat]
        targets_P = layout.ids[0].index_select(0, layout.pooled[low:high] + 1)
        return Judged(cross_entropy(pooled_PI, self._weight().to(pooled_PI.dtype), targets_P), None)

    def words(self, states_PI: Tensor) -> Tensor:
        """int64 [P] the likeliest next token of each."""
        return linear(states_PI, self._weight().to(states_PI.dtype), None).argmax(1)

    def tensors(self) -> dict[str, Tensor]:
        """By their names in the whole model."""
        return {NAME: self._weight().detach()} if self._own else {}
