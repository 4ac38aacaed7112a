from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage.models import EMBEDDED
from tunery.spec.base_model import shape_of


@pytest.mark.parametrize(
    ("model_id", "millions"),
    [  # as the models' cards say; decoders with tied embeddings
        ("google-bert/bert-base-uncased", 109.5),
        ("bert-base-uncased", 109.5),
        ("google-bert/bert-large-cased", 333.6),
        ("sentence-transformers/all-MiniLM-L6-v2", 22.7),
        ("HuggingFaceTB/SmolLM2-135M", 134.5),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134.5),
        ("Qwen/Qwen2.5-0.5B", 494.0),
        ("Qwen/Qwen2.5-1.5B", 1543.7),
        ("meta-llama/Llama-3.2-1B", 1235.8),
        ("meta-llama/Llama-3.2-3B", 3212.7),
    ],
)
def test_parameters_of_known_models(model_id: str, millions: float) -> None:
    shape = shape_of(model_id)
    assert shape is not None
    assert shape.parameters / 1e6 == pytest.approx(millions, rel=0.003)


def test_a_folder_is_known_by_its_config(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    config |= {"vocab_size": 100, "num_attention_heads": 4, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(str(tmp_path))
    assert shape is not None
    # 2 layers of q and o (64 x 64), k and v (64 x 32), and three of 64 x 128
    assert shape.linear_parameters == 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model_type": "mamba"}', '{"model_type": "bert"}', "\x00"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert shape_of(str(tmp_path)) is None
    assert shape_of("someone/unknown") is None


def test_an_embedded_model_is_known_with_its_package_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    known = shape_of("sentence-transformers/all-MiniLM-L6-v2")
    assert shape_of("embedded:minilm") == known
    monkeypatch.setitem(EMBEDDED, "embedded:minilm", "no_such_package_here")
    assert shape_of("embedded:minilm") == known
