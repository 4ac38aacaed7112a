"""Exported seats read back and asked again, several on one base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.tuners.conftest import STOP, Sums, load_base
from tuners.config import TrainConfig, TunerConfig
from tuners.engine import Asker, BaseSpec, HeadSpec, Pack, Reader, SeatSpec
from tuners.errors import SeatError
from tuners.lora.config import Config as LoraConfig
from tuners.qst.config import Config as QstConfig

SIDE = {"reduction": 4, "down_rank": 4, "quantise": False, "learning_rate": 3e-3}


def trained(pack: Pack, specs: list[SeatSpec], steps: int) -> Pack:
    for spec in specs:
        pack.join(spec)
    for _ in range(steps):
        pack.step()
    return pack


def asking(name: str, tuner: TunerConfig, *, seed: int) -> SeatSpec:
    train = TrainConfig(batch_size=8, epochs=20, learning_rate=1e-2, max_new_tokens=9, seed=seed)
    return SeatSpec(name, tuner, train, HeadSpec("generation", stop=(STOP,)), Sums(40), {"dev": Sums(17, 99)})


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_what_is_exported_says_the_same_again(family: str, tiny: Any, seat: Any, tmp_path: Path) -> None:
    specs = [seat("a", config=QstConfig, **SIDE), seat("b", config=QstConfig, **SIDE, down="pooling", seed=3)]
    pack = trained(Pack(load_base(BaseSpec(tiny(family), beside=True))), specs, 10)
    reader = Reader(load_base(BaseSpec(tiny(family), beside=True, kept_bytes=1 << 20)))
    for spec in specs:
        pack.export(spec.name, tmp_path / spec.name)
        reader.add(spec.name, spec.tuner, spec.head, tmp_path / spec.name)
    examples = [specs[0].eval_sets["dev"][index] for index in range(21)]
    dev = pack.evaluate(["a", "b"])
    for _ in range(2):  # the second time from what is kept
        found = reader.logits({"b": examples, "a": examples[:5]})
        np.testing.assert_allclose(found["b"], dev["b"]["dev"].logits, atol=1e-5)
        np.testing.assert_allclose(found["a"], dev["a"]["dev"].logits[:5], atol=1e-5)


def test_adapters_are_read_back_too(tiny: Any, seat: Any, tmp_path: Path) -> None:
    specs = [seat("a", rank=3), seat("b", rank=5, target_modules=("query", "dense"), seed=3, classes=3)]
    pack = trained(Pack(load_base(BaseSpec(tiny("bert")))), specs, 10)
    reader = Reader(load_base(BaseSpec(tiny("bert"))))
    for spec in specs:
        pack.export(spec.name, tmp_path / spec.name)
        reader.add(spec.name, spec.tuner, spec.head, tmp_path / spec.name)
    examples = [specs[0].eval_sets["dev"][index] for index in range(21)]
    found, dev = reader.logits({"a": examples, "b": examples}), pack.evaluate(["a", "b"])
    for name in ("a", "b"):
        np.testing.assert_allclose(found[name], dev[name]["dev"].logits, atol=1e-5)
    with pytest.raises(SeatError, match=r"lora_A.*missing or of another shape"):
        reader.add("c", LoraConfig(rank=4), specs[0].head, tmp_path / "a")
    with pytest.raises(SeatError, match="no model 'd' here; known: a, b"):
        reader.logits({"d": examples})
    with pytest.raises(SeatError, match="only a model with answers"):
        reader.answers({"a": Asker([], 3)})


def test_answers_are_read_back(generating: Any, tmp_path: Path) -> None:
    specs = [asking("a", LoraConfig(rank=4), seed=0), asking("b", LoraConfig(rank=2), seed=3)]
    pack = trained(Pack(load_base(BaseSpec(generating("llama"), language=True))), specs, 30)
    dev = pack.evaluate(["a", "b"])
    reader = Reader(load_base(BaseSpec(generating("llama"), language=True)))
    prompts = []
    for spec in specs:
        pack.export(spec.name, tmp_path / spec.name)
        reader.add(spec.name, spec.tuner, spec.head, tmp_path / spec.name)
        rows = [spec.eval_sets["dev"][index] for index in range(17)]
        prompts.append(Asker([row.ids[: int(row.label)] for row in rows], 9, (STOP,)))
    found = reader.answers(dict(zip("ab", prompts, strict=True)))
    for name in "ab":
        assert [list(answer) for answer in found[name]] == [list(answer) for answer in dev[name]["dev"].answers]
