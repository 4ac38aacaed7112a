"""Models with random weights, by the shapes of known ones: speed and memory depend on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BertConfig, LlamaConfig, Qwen2Config


@dataclass(frozen=True)
class Shape:
    """A model's shape."""

    what: str
    config: Callable[[], Any]
    targets: tuple[str, ...]
    """Linear layers that get an adapter."""


_ENCODER = ("query", "value")
_DECODER = ("q_proj", "v_proj")

SHAPES: Mapping[str, Shape] = {
    "minilm": Shape(
        "all-MiniLM-L6-v2",
        lambda: BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
        _ENCODER,
    ),
    "smollm2-6": Shape(
        "SmolLM2-135M with 6 of its 30 layers and 4096 of its 49152 tokens",
        lambda: LlamaConfig(
            vocab_size=4096,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=6,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
        _DECODER,
    ),
    "qwen2.5-1.5b": Shape(
        "Qwen2.5-1.5B",
        lambda: Qwen2Config(
            vocab_size=151936,
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            max_position_embeddings=32768,
            tie_word_embeddings=True,
        ),
        _DECODER,
    ),
    "llama-3.2-3b": Shape(
        "Llama-3.2-3B",
        lambda: LlamaConfig(
            vocab_size=128256,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=28,
            num_attention_heads=24,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            tie_word_embeddings=True,
        ),
        _DECODER,
    ),
}


def tiny(config: Any) -> Any:
    """The same family with hardly any weights, so that a script's code runs in seconds."""
    kept = {"max_position_embeddings": 2048, "tie_word_embeddings": config.tie_word_embeddings}
    grouped = {} if isinstance(config, BertConfig) else {"num_key_value_heads": 2}
    return type(config)(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        **kept,
        **grouped,
    )


def save(config: Any, folder: Path, *, dtype: torch.dtype, device: torch.device) -> None:
    """Write a checkpoint of random weights, drawn on `device`."""
    config.pad_token_id = 0
    torch.manual_seed(0)
    with device:
        AutoModel.from_config(config, dtype=dtype).save_pretrained(folder)
