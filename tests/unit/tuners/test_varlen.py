"""Attention over sequences end to end, as on a device whose kernel takes them so, beside that over the buckets."""

# T tokens, H heads, D elements a head

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tests.unit.tuners.conftest import load_base
from tuners.engine import Base, BaseSpec, Pack, attention

ROUNDING = 1e-11
"""In float64: both add up in another order."""
MIXED: list[dict[str, Any]] = [
    {"rank": 4, "seed": 1, "batch_size": 8, "dropout": 0.1},
    {"rank": 16, "seed": 2, "batch_size": 5, "classes": 3},
    {"rank": 1, "seed": 3, "batch_size": 2, "classes": 1},
]


class Kernel:
    """Stands in for the device's: one sequence after the other."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.fillers = self.shared = 0
        """Tokens of no sequence that it was given; calls with fewer key heads than heads."""

    def __call__(
        self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, cuts: Tensor, longest: int, *, causal: bool, scale: float
    ) -> Tensor:
        bounds = cuts.tolist()
        assert cuts.dtype == torch.int32
        assert (bounds[0], bounds[-1]) == (0, len(q_THD))
        assert longest == max(high - low for low, high in pairwise(bounds))
        self.fillers += len(self.base.context.layout.fillers)
        self.shared += q_THD.shape[1] > k_TKD.shape[1]
        parts = []
        for low, high in pairwise(bounds):
            q, k, v = (x[low:high].transpose(0, 1)[None] for x in (q_THD, k_TKD, v_TKD))
            out = scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
            parts.append(out[0].transpose(0, 1))
        return torch.cat(parts)


def trained(base: Base, seat: Any) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Each step's losses, and the logits afterwards."""
    pack = Pack(base)
    for number, fields in enumerate(MIXED):
        pack.join(seat(str(number), **fields))
    losses = [{name: report.loss for name, report in pack.step().items()} for _ in range(10)]
    return losses, {name: found["dev"].logits for name, found in pack.evaluate(pack.seats).items()}


@pytest.mark.parametrize(
    ("family", "model"),
    [("bert", {"attention_probs_dropout_prob": 0.0}), ("bert", {}), ("llama", {}), ("qwen3", {})],
    ids=["bert", "bert-dropped-attention", "llama", "qwen3"],
)
def test_sequences_end_to_end_give_what_the_buckets_give(
    family: str, model: dict[str, Any], tiny: Any, seat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(BaseSpec(tiny(family, **model), dtype="float64"))
    losses, logits = trained(base, seat)
    kernel = Kernel(base)
    monkeypatch.setattr(attention, "varlen", kernel)
    base.context.varlen = True
    found, found_logits = trained(base, seat)
    assert kernel.fillers > 0
    assert (kernel.shared > 0) == (base.causal)
    for step, own in enumerate(found):
        assert own == pytest.approx(losses[step], abs=ROUNDING)
    for name, values in found_logits.items():
        np.testing.assert_allclose(values, logits[name], atol=1e-6)  # they come in float32
