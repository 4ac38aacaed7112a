"""LoRA's further options against PEFT in a plain torch loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from pydantic import ValidationError

from tests.unit.tuners.conftest import load_base
from tests.unit.tuners.test_full import padded
from tuners.engine import BaseSpec, Pack
from tuners.engine.streams import permutation
from tuners.errors import TunerError
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

STEPS = 40
OPTIONS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True, "rank": 9},
    "bias": {"bias": "lora_only", "target_modules": ("q_proj", "k_proj", "o_proj")},
    "whole": {"modules_to_save": ("up_proj", "v_proj"), "target_modules": ("q_proj",)},
    "all-linear": {"target_modules": "all-linear"},
    "everything": {
        "target_modules": "all-linear",
        "bias": "lora_only",
        "modules_to_save": ("v_proj", "score"),
        "use_rslora": True,
    },
}


def peft_model(folder: str, adapter: Path, *, trained: bool) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder)
    config.num_labels, config.pad_token_id = 2, 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=torch.float64)
    return peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=trained)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("grouped", [False, True], ids=["loop", "grouped"])
def test_losses_and_logits_are_those_of_peft(name: str, grouped: bool, tiny: Any, seat: Any, tmp_path: Path) -> None:
    folder = tiny("qwen2")  # whose queries, keys and values have biases
    # In float64, where rounding cannot be taken for a fault; torch's grouped products have it not.
    base, within = load_base(BaseSpec(folder, dtype="float32" if grouped else "float64")), 1e-4 if grouped else 1e-9
    base.kernels = replace(base.kernels, adapters="grouped" if grouped else "loop")
    pack, spec = Pack(base), seat("a", weight_decay=0.0, learning_rate=3e-3, **OPTIONS[name])
    pack.join(seat("before", seed=7))
    pack.join(spec)
    pack.join(seat("after", seed=8, rank=3))
    pack.export("a", tmp_path / "start")
    rival = peft_model(folder, tmp_path / "start", trained=True).train()
    parameters = [parameter for parameter in rival.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in parameters) == pack.progress("a").trainable
    optimiser = torch.optim.AdamW(parameters, lr=spec.train.learning_rate, weight_decay=0.0)
    batches = -(-len(spec.train_set) // spec.train.batch_size)
    for step in range(STEPS):
        ours = pack.step()["a"].loss
        epoch, batch = divmod(step, batches)
        order = permutation(spec.train.seed, epoch, len(spec.train_set))[batch * 8 : (batch + 1) * 8]
        ids, labels = padded([spec.train_set[int(row)] for row in order])
        logits = rival(input_ids=ids, attention_mask=(ids != 0).long()).logits
        loss = torch.nn.functional.cross_entropy(logits, labels.long())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, spec.train.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = spec.train.learning_rate * (1 - step / (spec.train.epochs * batches))
        optimiser.step()
        assert ours == pytest.approx(float(loss.detach()), abs=within)
    pack.export("a", tmp_path / "end")
    dev = spec.eval_sets["dev"]
    ids, _ = padded([dev[row] for row in range(len(dev))])
    with torch.no_grad():
        logits = peft_model(folder, tmp_path / "end", trained=False).eval()(ids, (ids != 0).long()).logits
    np.testing.assert_allclose(pack.evaluate(["a"])["a"]["dev"].logits, logits.numpy(), atol=1e-3 if grouped else 1e-6)


def test_neighbours_do_not_see_what_one_trains_whole(tiny: Any, seat: Any) -> None:
    base = load_base(BaseSpec(tiny("qwen2"), dtype="float64"))

    def losses(*names: str) -> list[float]:
        pack = Pack(base)
        for name in names:
            pack.join(seat(name, seed=3, **(OPTIONS["everything"] if name == "whole" else {})))
        return [pack.step()["plain"].loss for _ in range(10)]

    np.testing.assert_allclose(losses("plain"), losses("whole", "plain"), atol=1e-12)


def test_what_cannot_be_packed_is_refused_with_the_reason(seat: Any, base_of: Any) -> None:
    with pytest.raises(ValidationError, match=r"DoRA cannot be packed.*use_rslora"):
        LoraConfig(use_dora=True)
    with pytest.raises(ValidationError, match=r"'none' or 'lora_only' .'all' cannot be packed"):
        LoraConfig(bias="all")
    pack = Pack(base_of("qwen2"))
    with pytest.raises(TunerError, match="it can have one of the two"):
        pack.join(seat("a", modules_to_save=("q_proj",), target_modules=("q_proj",)))
    with pytest.raises(TunerError, match=r"'lm_head' is no linear layer of this base; known: .*q_proj"):
        pack.join(seat("a", modules_to_save=("lm_head",)))
    four = Pack(base_of("qwen2", quantisation="nf4"))
    with pytest.raises(TunerError, match="cannot be trained whole on a base in 4 bits"):
        four.join(seat("a", config=QloraConfig, double_quantisation=False, modules_to_save=("up_proj",)))
