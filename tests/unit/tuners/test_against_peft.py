"""The engine against PEFT in a plain torch loop, step by step: losses, rates, gradients and what is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from tests.unit.tuners.conftest import Sentences
from tests.unit.tuners.rival import Step, side_by_side
from tuners.engine import Pack
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

STEPS = 200
LOOKED_AT = (1, 50, STEPS)
"""After so many steps all that has been trained is compared."""
LOSS = {"float32": 2e-5, "nf4": 2e-5, "float64": 1e-12}
"""Both add up in another order, and training carries the last bits on: ten times what is measured, since other machines
add up in yet another. In float64 nothing else is left."""
WEIGHT = {"float32": 5e-6, "nf4": 5e-6, "float64": 1e-12}
"""Of each value that is trained."""
GRADIENT = {"float32": 4e-3, "nf4": 4e-3, "float64": 1e-11}
"""Of each value, as a share of the largest of its tensor: a bias may be the small difference of large ones."""
GRADIENT_BFLOAT16 = 0.05
"""As a share of the gradient's norm, the L2 distance to PEFT's: a number has 8 bits, and hundreds make a value."""


@dataclass(frozen=True)
class Case:
    """A seat and the model that it trains on."""

    family: str
    fields: dict[str, Any]
    model: dict[str, Any] = field(default_factory=dict)
    """What its configuration has otherwise than the others'."""
    longest: int = 14
    """Tokens; the neighbours' sequences have up to 14."""


SHORT = ("bert", "bert-all-layers", "bert-regression", "llama", "qwen2")
LONG: dict[str, Any] = {"batch_size": 3, "examples": 21}
CASES = {
    "bert": Case("bert", {"dropout": 0.1, "rank": 4}),
    "bert-all-layers": Case(
        "bert", {"dropout": 0.2, "rank": 64, "target_modules": ("query", "key", "value", "dense"), "classes": 3}
    ),
    "bert-regression": Case("bert", {"classes": 1, "clip_norm": 0.3, "schedule": "cosine", "accumulation": 3}),
    "llama": Case(
        "llama",
        {
            "dropout": 0.1,
            "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"),
            "schedule": "constant",
        },
    ),
    "qwen2": Case("qwen2", {"dropout": 0.1, "rank": 3, "classes": 3, "accumulation": 2, "batch_size": 4}),
    "llama-dropped-attention": Case("llama", {"dropout": 0.1}, {"attention_dropout": 0.1}),
    # In float32 torch's own attention from 40 tokens, with a mask; in float64 ours.
    "bert-60-tokens": Case("bert", LONG, {"attention_probs_dropout_prob": 0.0}, 60),
    # Torch's own attention in both, causal.
    "llama-160-tokens": Case("llama", LONG, {"max_position_embeddings": 160}, 160),
    # Ours in pieces, each computed again in the backward.
    "bert-160-tokens": Case("bert", LONG | {"dropout": 0.1}, {"max_position_embeddings": 160}, 160),
}


def side_by_side_in_company(
    case: Case, base_of: Any, seat: Any, folder: Path, *, dtype: str, nf4: bool = False
) -> Iterator[tuple[Step, Step]]:
    """The case's seat between others of other ranks, batches and rows."""
    config = QloraConfig if nf4 else LoraConfig
    base = base_of(case.family, dtype=dtype, quantisation="nf4-double" if nf4 else "none", **case.model)
    fields: dict[str, Any] = {"batch_size": 7, "schedule": "linear", "examples": 40, "classes": 2} | case.fields
    examples, classes = fields.pop("examples"), fields["classes"]
    rows = Sentences(examples, seed=1, classes=classes, longest=case.longest)
    epochs = math.ceil(STEPS / math.ceil(examples / (fields["batch_size"] * fields.get("accumulation", 1))))
    common = {"config": config, "weight_decay": 0.05, "warmup_ratio": 0.1}
    spec = seat("a", seed=11, epochs=epochs, train_set=rows, **common, **fields)
    wide = ("o_proj",) if base.causal else ("query", "dense")
    before = {"rank": 1, "dropout": 0.3, "batch_size": 5, "train_set": Sentences(40, seed=5)}
    behind = {"rank": 64, "batch_size": 2, "classes": 3, "target_modules": wide}
    pack = Pack(base)
    pack.join(seat("before", config=config, seed=3, epochs=36, **before))
    pack.join(spec)
    pack.join(seat("behind", config=config, seed=4, epochs=5, train_set=Sentences(40, seed=6, classes=3), **behind))
    return side_by_side(pack, spec, folder, steps=STEPS)


def assert_close(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], what: str, *, of_all: float, of_largest: float
) -> None:
    """Each value, within a tolerance and a share of the largest of its tensor."""
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        apart, largest = float((ours[name] - values).abs().max()), float(values.abs().max())
        assert apart <= of_all + of_largest * largest, f"{what}: {name} is off by {apart}, its largest is {largest}"


@pytest.mark.parametrize(
    ("name", "numbers"),
    [(name, "float64") for name in CASES]
    + [(name, "float32") for name in (*SHORT, "bert-60-tokens", "llama-160-tokens")]
    + [(name, "nf4") for name in ("bert-all-layers", "llama", "qwen2")],
)
def test_a_seat_in_a_pack_trains_as_peft_does(name: str, numbers: str, base_of: Any, seat: Any, tmp_path: Path) -> None:
    nf4 = numbers == "nf4"
    dtype = "float32" if nf4 else numbers
    steps = side_by_side_in_company(CASES[name], base_of, seat, tmp_path, dtype=dtype, nf4=nf4)
    done = 0
    for ours, theirs in steps:
        done += 1
        assert ours.loss == pytest.approx(theirs.loss, abs=LOSS[numbers]), f"step {done}"
        assert ours.norm == pytest.approx(theirs.norm, rel=10 * LOSS[numbers], abs=LOSS[numbers]), f"step {done}"
        assert ours.rate == pytest.approx(theirs.rate, rel=1e-12), f"step {done}"
        assert_close(ours.gradients, theirs.gradients, f"step {done}", of_all=0.0, of_largest=GRADIENT[numbers])
        if done in LOOKED_AT:
            assert_close(ours.weights, theirs.weights, f"after {done}", of_all=WEIGHT[numbers], of_largest=0.0)
    assert done == STEPS


def apart(ones: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The L2 distance of all values."""
    return norm({name: ones[name] - other for name, other in others.items()})


def norm(ones: dict[str, Tensor]) -> float:
    return math.sqrt(sum(float(values.double().square().sum()) for values in ones.values()))


@dataclass
class Course:
    """What is kept of a seat's steps."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    """Of the first two steps: a warm-up begins at 0, so that both are those of the weights that it starts with."""
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    """After `LOOKED_AT`."""

    def add(self, step: Step) -> None:
        self.losses.append(step.loss)
        if len(self.losses) <= 2:
            self.gradients.append(step.gradients)
        if len(self.losses) in LOOKED_AT[1:]:
            self.weights.append({name: values.clone() for name, values in step.weights.items()})


@pytest.mark.parametrize(("name", "nf4"), [("bert", False), ("llama", False), ("qwen2", False), ("llama", True)])
def test_in_bfloat16_it_is_as_near_to_float32_as_peft_is(
    name: str, nf4: bool, base_of: Any, seat: Any, tmp_path: Path
) -> None:
    # Eight bits of each number are left, and what they lose depends on the order of sums: PEFT itself is some way from
    # what it gives in float32. Ours must be no further from that.
    found: dict[str, tuple[Course, Course]] = {}
    for dtype in ("float32", "bfloat16"):
        ours, theirs = found[dtype] = Course(), Course()
        for step in side_by_side_in_company(CASES[name], base_of, seat, tmp_path / dtype, dtype=dtype, nf4=nf4):
            for course, taken in zip((ours, theirs), step, strict=True):
                course.add(taken)
    exact = found["float32"][1]
    losses = [np.array(course.losses) for course in (ours, theirs, exact)]
    assert len(losses[0]) == STEPS
    rounding = np.abs(losses[1] - losses[2]).mean()
    assert 0 < np.abs(losses[0] - losses[2]).mean() <= rounding
    assert np.abs(losses[0] - losses[1]).mean() <= 2 * rounding
    # PEFT computes adapters in float32, and so has the nearer gradient by a little; its head's weights are in bfloat16.
    for own, peft, right in zip(ours.gradients, theirs.gradients, exact.gradients, strict=True):
        assert 0 < apart(own, right) <= 1.5 * apart(peft, right)
        assert apart(own, peft) <= GRADIENT_BFLOAT16 * norm(peft)
    for own, peft, right in zip(ours.weights, theirs.weights, exact.weights, strict=True):
        assert 0 < apart(own, right) <= apart(peft, right)
