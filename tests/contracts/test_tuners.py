"""What every tuning method must do, whichever they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tuners
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, Reader, SeatSpec, SeatState

pytestmark = pytest.mark.parametrize("method", tuners.names())


class Marked:
    """A token says which class it is."""

    lengths = np.full(64, 6, np.int32)

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Example:
        ids = np.array([2, 10 + index % 2, 20 + index % 17, 30 + index % 5, 40 + index % 7, 3], np.int32)
        return Example(ids, None, float(index % 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertConfig, BertModel

    torch.set_num_threads(1)
    config = BertConfig(
        vocab_size=60, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    path = tmp_path_factory.mktemp("bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(path)
    return str(path)


def joined(method: str, folder: str, **fields: Any) -> Pack:
    config = tuners.config_class(method).model_validate({"method": method})
    spec = BaseSpec(
        folder,
        quantisation=config.quantisation,
        trained=config.trains_base,
        beside=config.trains_beside,
        kept_bytes=config.kept_bytes,
    )
    pack = Pack(Base.load(spec))
    train = TrainConfig(**({"batch_size": 16, "epochs": 30, "learning_rate": 3e-3} | fields))
    head = HeadSpec("classification", ("no", "yes"))
    pack.join(SeatSpec("a", config, train, head, Marked(), {"dev": Marked()}))
    return pack


def test_a_configuration_says_its_method_and_survives_json(method: str) -> None:
    config = tuners.config_class(method).model_validate({"method": method})
    assert config.method == method
    assert type(config).model_validate_json(config.model_dump_json()) == config


def test_a_configuration_loads_nothing_heavy(method: str) -> None:
    code = f"import sys, tuners; tuners.config_class({method!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_fresh_adapter_leaves_the_output_as_it_was(method: str, folder: str) -> None:
    pack = joined(method, folder)
    with_adapter = pack.evaluate(["a"])["a"]["dev"].logits
    pack._seats["a"].slots = {}
    pack._trained = {}
    np.testing.assert_array_equal(pack.evaluate(["a"])["a"]["dev"].logits, with_adapter)


def test_it_learns(method: str, folder: str) -> None:
    pack = joined(method, folder)
    before = pack.evaluate(["a"])["a"]["dev"].loss
    while not pack.progress("a").finished:
        assert not pack.step()["a"].diverged
    after = pack.evaluate(["a"])["a"]["dev"]
    assert after.loss < before / 4
    assert (after.logits.argmax(1) == after.labels).mean() > 0.95


def test_its_state_carries_everything(method: str, folder: str) -> None:
    stays = joined(method, folder)
    for _ in range(3):
        stays.step()
    data = stays.state("a").to_bytes()
    spec = stays._seats["a"].spec
    went_on = [stays.step() for _ in range(3)]
    stays.leave("a")
    moved = Pack(stays.base)
    moved.join(spec, SeatState.from_bytes(data))
    assert [moved.step() for _ in range(3)] == went_on


def test_its_export_says_the_same_again(method: str, folder: str, tmp_path: Path) -> None:
    """Without this project, where what is trained is an adapter or a whole model."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification

    pack = joined(method, folder)
    for _ in range(3):
        pack.step()
    pack.export("a", tmp_path)
    config = tuners.config_class(method).model_validate({"method": method})
    if config.trains_beside:
        reader = Reader(pack.base)
        reader.add("a", config, HeadSpec("classification", ("no", "yes")), tmp_path)
        logits = reader.logits({"a": [Marked()[index] for index in range(64)]})["a"]
        np.testing.assert_allclose(logits, pack.evaluate(["a"])["a"]["dev"].logits, atol=1e-5)
        return
    if config.trains_base:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        assert model.config.id2label == {0: "no", 1: "yes"}
    else:
        assert PeftConfig.from_pretrained(str(tmp_path)).base_model_name_or_path == folder
        model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(folder), str(tmp_path))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(np.stack([Marked()[i].ids for i in range(64)])).long()).logits
    within = 0.05 if pack.base.spec.quantisation != "none" else 1e-5
    np.testing.assert_allclose(logits.numpy(), pack.evaluate(["a"])["a"]["dev"].logits, atol=within)
