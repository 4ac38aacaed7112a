from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import peft
import pytest
import torch
import transformers

from tests.unit.tuners.conftest import DEVICE, load_base
from tuners.engine import BaseSpec, Pack
from tuners.engine.linear import DenseWeight
from tuners.engine.nf4 import Buffer, Nf4Weight
from tuners.errors import SeatError
from tuners.qlora.config import Config

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(192, 64), (1536, 1024), (100, 48), (7, 33)])
def test_a_weight_is_what_was_quantised(shape: tuple[int, int], double: bool) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = Nf4Weight(weight, Buffer(), double=double).dense()
    # The flat weight as one row: bitsandbytes' kernel is wrong for rows that are no multiple of a block.
    packed, state = bnb.functional.quantize_4bit(weight.view(1, -1), quant_type="nf4", compress_statistics=double)
    torch.testing.assert_close(found.view(1, -1), bnb.functional.dequantize_4bit(packed, state), rtol=0, atol=0)
    assert 0 < (found - weight).abs().mean() < 0.1


def test_layers_share_one_buffer() -> None:
    buffer = Buffer()
    a, b = (Nf4Weight(torch.full((64, 64), value), buffer, double=True) for value in (1.0, 2.0))
    first = a.dense()
    assert first.data_ptr() == b.dense().data_ptr()
    assert first.mean() == pytest.approx(2.0)


def test_only_the_backbones_linear_layers_are_quantised(base_of: Any) -> None:
    base = base_of("bert", quantisation="nf4-double")
    assert len(base.linears) == 2 * 6
    assert all(isinstance(linear.weight, Nf4Weight) for linear in base.linears.values())
    assert base.parameters == base_of("bert").parameters
    others = [v for name, v in base._backbone.state_dict().items() if ".weight." not in name]
    assert {values.dtype for values in others} == {torch.float32}


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradients_are_the_same_before_and_after_an_evaluation(family: str, base_of: Any, seat: Any) -> None:
    # bitsandbytes' own CPU layers repack their weights there, and train on with zero gradients.
    def norms(*, evaluate: bool) -> list[float]:
        pack = Pack(base_of(family, quantisation="nf4-double"))
        pack.join(seat("a", config=Config, rank=4))
        found = []
        for _ in range(4):
            if evaluate:
                pack.evaluate(["a"])
            found.append(pack.step()["a"].grad_norm)
        return found

    plain = norms(evaluate=False)
    assert min(plain) > 0
    assert norms(evaluate=True) == plain


@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_it_is_lora_on_the_dequantised_weights(family: str, base_of: Any, tiny: Any, seat: Any) -> None:
    quantised = base_of(family, quantisation="nf4")
    dense = load_base(BaseSpec(tiny(family)))
    for name, linear in dense.linears.items():
        linear.weight = DenseWeight(quantised.linears[name].weight.dense().clone())
    dense.spec = quantised.spec
    losses = []
    for base in (quantised, dense):
        pack = Pack(base)
        pack.join(seat("a", config=Config, double_quantisation=False, dropout=0.1, rank=4))
        pack.join(seat("b", config=Config, double_quantisation=False, rank=2, seed=1))
        losses.append([pack.step()["a"].loss for _ in range(10)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_dequantised_once_gives_the_same_bits(dtype: Any, base_of: Any, tiny: Any, seat: Any) -> None:
    each_step = base_of("qwen2", quantisation="nf4-double", dtype=dtype)
    once = load_base(BaseSpec(tiny("qwen2"), quantisation="nf4-double", dequantised_once=True, dtype=dtype))
    assert all(isinstance(linear.weight, DenseWeight) for linear in once.linears.values())
    thetas = []
    for base in (each_step, once):
        pack = Pack(base)
        pack.join(seat("a", config=Config, dropout=0.1, rank=4))
        for _ in range(5):
            pack.step()
        thetas.append(pack.state("a").tensors["theta"])
    assert torch.equal(*thetas)


def test_seats_and_bases_of_other_quantisations_do_not_meet(base_of: Any, seat: Any) -> None:
    with pytest.raises(SeatError, match="needs a base with quantisation 'nf4-double'; this one's is 'none'"):
        Pack(base_of("bert")).join(seat("a", config=Config))
    with pytest.raises(SeatError, match="needs a base with quantisation 'none'; this one's is 'nf4'"):
        Pack(base_of("bert", quantisation="nf4")).join(seat("a"))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_peft_on_a_quantised_base_gives_the_engines_logits(
    family: str, base_of: Any, tiny: Any, seat: Any, adapter_folder: Path
) -> None:
    pack = Pack(base_of(family, quantisation="nf4-double"))
    pack.join(seat("a", config=Config, rank=4, target_modules=ALL, learning_rate=1e-2))
    for _ in range(8):
        pack.step()
    pack.export("a", adapter_folder)
    found = pack.evaluate(["a"])["a"]["dev"].logits
    quantisation = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["score"],
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny(family), num_labels=2, quantization_config=quantisation, device_map=str(DEVICE), dtype=torch.float32
    )
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    model = peft.PeftModel.from_pretrained(model, adapter_folder).eval()
    examples = pack._seats["a"].spec.eval_sets["dev"]
    with torch.no_grad():
        for index in range(len(examples)):
            ids = torch.from_numpy(examples[index].ids.astype(np.int64))[None].to(DEVICE)
            np.testing.assert_allclose(model(input_ids=ids).logits[0].cpu().numpy(), found[index], atol=1e-4)
