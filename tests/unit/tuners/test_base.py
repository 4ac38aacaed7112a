from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tuners.engine import Base, BaseSpec
from tuners.engine.layout import Rows, lay_out, training_rows
from tuners.errors import TunerError

FAMILIES = ["bert", "roberta", "distilbert", "llama", "qwen2", "qwen3", "mistral"]


def pooled(base: Base, examples: Any, *, training: bool, parts: list[int], seeds: list[int] | None = None) -> Any:
    """Rows of several seats in one forward."""
    rows, start = [], 0
    for place, size in enumerate(parts):
        chosen = [examples[index] for index in range(start, start + size)]
        seed = seeds[place] if seeds else place
        rows.append(training_rows(chosen, seed=seed, step=3, first=0) if training else Rows(chosen, None))
        start += size
    layout = lay_out(rows, causal=base.causal, first_position=base.first_position, device=base.device)
    return base.pooled(layout, {}, training=training).cpu()


@pytest.mark.parametrize("family", FAMILIES)
def test_end_to_end_is_what_one_sequence_at_a_time_gives(family: str, tiny: Any, base_of: Any, sentences: Any) -> None:
    base, examples = base_of(family), sentences(17, longest=30)
    found = pooled(base, examples, training=False, parts=[9, 8])
    model = transformers.AutoModel.from_pretrained(tiny(family)).eval()
    for index in range(17):
        with torch.no_grad():
            out = model(input_ids=torch.from_numpy(examples[index].ids.astype(np.int64))[None])
        alone = out.last_hidden_state[0, -1 if base.causal else 0]
        if family == "bert":
            alone = out.pooler_output[0]
        torch.testing.assert_close(found[index], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "after"),
    [
        ("bert", {"attention.output.dense", "intermediate.dense", "output.dense"}),
        ("distilbert", {"attention.out_lin", "ffn.lin1", "ffn.lin2"}),
        ("llama", {"self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}),
    ],
)
def test_what_comes_after_the_last_attention_is_computed_for_pooled_tokens_only(
    family: str, after: set[str], base_of: Any
) -> None:
    marked = {name for name, linear in base_of(family).linears.items() if linear.pooled_only}
    assert {name.split("layer.1.")[-1].split("layers.1.")[-1] for name in marked} == after
    assert all("layer.1." in name or "layers.1." in name for name in marked)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_bases_own_dropout_belongs_to_the_seat(family: str, base_of: Any, sentences: Any) -> None:
    base, examples = base_of(family), sentences(17, longest=30)
    state = torch.get_rng_state()
    both = pooled(base, examples, training=True, parts=[9, 8], seeds=[5, 6])
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn from the global stream"
    alone = pooled(base, examples, training=True, parts=[9], seeds=[5])
    torch.testing.assert_close(both[:9], alone, rtol=1e-5, atol=1e-5)
    other = pooled(base, examples, training=True, parts=[9], seeds=[6])
    assert (other - alone).abs().max() > 1e-2
    assert (pooled(base, examples, training=False, parts=[9]) - alone).abs().max() > 1e-2


def test_a_checkpoint_without_a_pooler_gets_one_that_is_trained(base_of: Any) -> None:
    family = base_of("bert", pooler=False).family
    assert [layer.path for layer in family.head] == ["bert.pooler.dense", "classifier"]
    assert set(family.saved) == {"classifier", "pooler"}
    assert [layer.path for layer in base_of("bert").family.head] == ["classifier"]


def test_loading_leaves_the_global_stream_as_it_was(tiny: Any) -> None:
    state = torch.get_rng_state()
    Base.load(BaseSpec(tiny("bert", pooler=False)))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_is_not_there_or_cannot_be_packed_is_named(tmp_path: Path) -> None:
    with pytest.raises(TunerError, match="cannot load the model '/nowhere/at/all'"):
        Base.load(BaseSpec("/nowhere/at/all"))
    transformers.T5Config(d_model=8, num_layers=1, num_heads=1, d_ff=8, vocab_size=20).save_pretrained(tmp_path)
    with pytest.raises(TunerError, match="models of type 't5' cannot be packed; known: bert, distilbert"):
        Base.load(BaseSpec(str(tmp_path)))


def test_a_checkpoint_that_lacks_weights_is_refused(tiny: Callable[..., str], tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(tiny("llama"))
    weights = {name: values for name, values in model.state_dict().items() if "layers.1.mlp" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(TunerError, match=r"lacks weights: layers\.1\.mlp"):
        Base.load(BaseSpec(str(tmp_path)))
