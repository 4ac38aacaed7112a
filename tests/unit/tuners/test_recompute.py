from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.unit.tuners.conftest import load_base
from tuners.engine import BaseSpec, Pack
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

SEATS: Mapping[str, Mapping[str, Any]] = {
    "a": {"rank": 4, "seed": 1, "dropout": 0.1},
    "b": {"rank": 16, "seed": 2, "batch_size": 5, "accumulation": 3, "classes": 3},
}


def packs(folder: str, seat: Any, fields: Mapping[str, Mapping[str, Any]], quantisation: Any = "none") -> list[Pack]:
    """Without and with checkpointing."""
    made = []
    for checkpointing in (False, True):
        pack = Pack(load_base(BaseSpec(folder, quantisation=quantisation), checkpointing=checkpointing))
        for name, values in fields.items():
            pack.join(seat(name, config=LoraConfig if quantisation == "none" else QloraConfig, **values))
        made.append(pack)
    return made


@pytest.mark.parametrize(
    ("family", "quantisation"), [("bert", "none"), ("distilbert", "none"), ("qwen2", "none"), ("llama", "nf4-double")]
)
def test_what_is_computed_again_comes_out_the_same_to_the_bit(
    family: str, quantisation: str, tiny: Callable[..., str], seat: Any
) -> None:
    kept, again = packs(tiny(family), seat, SEATS, quantisation)
    for _ in range(4):
        assert kept.step() == again.step()
    for name in SEATS:
        for key, values in kept.state(name).tensors.items():
            assert torch.equal(values, again.state(name).tensors[key]), (name, key)
    evaluations = [pack.evaluate(["a"])["a"]["dev"] for pack in (kept, again)]
    assert (evaluations[0].logits == evaluations[1].logits).all()


def test_less_is_in_memory_at_once(tiny: Callable[..., str], seat: Any, sentences: Any) -> None:
    everywhere = {"rank": 4, "dropout": 0.1, "target_modules": ("query", "key", "value", "dense")}
    fields = {"a": {**everywhere, "batch_size": 40, "train_set": sentences(40, longest=60)}}
    kept, again = (peak(pack) for pack in packs(tiny("bert", num_hidden_layers=8), seat, fields))
    # Of eight layers one is whole at a time, and the inputs of all; what slots keep is not left out.
    assert again < 0.25 * kept


def peak(pack: Pack) -> int:
    """Bytes that a step allocates on top of what was there."""
    pack.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        pack.step()
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    held = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
