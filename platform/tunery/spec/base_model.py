"""What can be known of a base model without loading it: its shapes, and so its size in memory."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.errors import StorageError
from storage.models import is_folder, model_folder

_SHARED_INPUTS = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "up_proj")
"""Layers whose input is that of another one before them, or of a norm's, and is kept anyway."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer that its parameters follow from."""

    family: Literal["bert", "llama", "qwen2"]
    hidden: int
    layers: int
    inner: int
    """Width of the feed-forward network."""
    vocabulary: int
    heads: int
    kv_heads: int
    head_size: int
    positions: int = 0
    """Learned positions; 0 where they are computed."""

    def linears(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """Last name of the linear layers of one block -> (in, out) of each layer of that name."""
        h, inner = self.hidden, self.inner
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        if self.family == "bert":
            return {
                **dict.fromkeys(("query", "key", "value"), ((h, h),)),
                "dense": ((h, h), (h, inner), (inner, h)),
            }
        return {
            "q_proj": ((h, q),),
            "k_proj": ((h, kv),),
            "v_proj": ((h, kv),),
            "o_proj": ((q, h),),
            "gate_proj": ((h, inner),),
            "up_proj": ((h, inner),),
            "down_proj": ((inner, h),),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of the blocks' linear layers: what a 4-bit base quantises."""
        return self.layers * sum(i * o for layers in self.linears().values() for i, o in layers)

    @property
    def parameters(self) -> int:
        """All parameters without a head; biases and norms of the blocks are counted roughly."""
        h = self.hidden
        embeddings = (self.vocabulary + self.positions) * h
        small = self.layers * (4 * h + (5 * h + self.inner if self.family == "bert" else 0))
        pooler = h * h if self.family == "bert" else 0
        return embeddings + self.linear_parameters + small + pooler

    @property
    def activation_bytes(self) -> int:
        """Of a token in float32, as the engine bounds its forwards by it (`Base.activation_bytes`)."""
        return self.layers * (10 * self.hidden + 3 * self.inner) * 4

    def kept_bytes(
        self,
        targets: Collection[str] | None,
        *,
        length: float,
        width: int = 4,
        dropout: bool = False,
        gpu: bool = False,
    ) -> float:
        """What a token keeps from forward to backward, by estimate.

        `targets`: last names of the layers with an adapter; None: every weight is trained. `length`: tokens of a
        sequence. `width`: bytes of a value. `dropout`: on the adapters' inputs. The factors are those that
        tests/unit/tuners/test_forecast.py holds against what the engine measures.
        """
        bert = self.family == "bert"
        # Inputs of norms, of the activation function and of attention; those of q, k and v are one.
        attention, whole, inner = (9, 8, 1) if bert else (13, 10, 3)
        names = tuple(self.linears()) if targets is None else targets
        seen = {name: [i for i, _ in self.linears().get(name.rpartition(".")[2], ())] for name in names}
        inputs = sum(sum(widths) for name, widths in seen.items() if name not in _SHARED_INPUTS)
        kept: float = (self.layers - 1) * (whole * self.hidden + inner * self.inner + inputs) + attention * self.hidden
        if targets is None and not bert:
            kept += 2.5 * self.layers * self.hidden  # the norms' own gradients
        masks = 2 * self.layers * sum(map(sum, seen.values())) if dropout else 0
        # Encoders drop attention out: its probabilities are kept, and which of them count.
        probabilities = 6 * self.layers * self.heads * length if bert else 0
        # On a CPU attention of short sequences is computed in float32.
        copies = 3 * 4 * self.layers * self.hidden if width == 2 and length <= 128 and not gpu else 0
        return kept * width + masks + probabilities + copies

    @property
    def default_targets(self) -> tuple[str, ...]:
        """The layers that get an adapter where a spec names none."""
        return ("query", "value") if self.family == "bert" else ("q_proj", "v_proj")


def _bert(hidden: int, layers: int, inner: int, vocabulary: int) -> Shape:
    heads = hidden // 64
    return Shape("bert", hidden, layers, inner, vocabulary, heads, heads, 64, positions=512)


def _decoder(
    family: Literal["llama", "qwen2"], hidden: int, layers: int, inner: int, vocabulary: int, heads: int, kv_heads: int
) -> Shape:
    return Shape(family, hidden, layers, inner, vocabulary, heads, kv_heads, hidden // heads)


# From the models' published config.json.
_KNOWN: Mapping[str, Shape] = {
    "google-bert/bert-base-uncased": _bert(768, 12, 3072, 30522),
    "google-bert/bert-base-cased": _bert(768, 12, 3072, 28996),
    "google-bert/bert-large-uncased": _bert(1024, 24, 4096, 30522),
    "google-bert/bert-large-cased": _bert(1024, 24, 4096, 28996),
    "sentence-transformers/all-MiniLM-L6-v2": Shape("bert", 384, 6, 1536, 30522, 12, 12, 32, positions=512),
    "HuggingFaceTB/SmolLM2-135M": _decoder("llama", 576, 30, 1536, 49152, 9, 3),
    "HuggingFaceTB/SmolLM2-360M": _decoder("llama", 960, 32, 2560, 49152, 15, 5),
    "HuggingFaceTB/SmolLM2-1.7B": _decoder("llama", 2048, 24, 8192, 49152, 32, 32),
    "meta-llama/Llama-3.2-1B": _decoder("llama", 2048, 16, 8192, 128256, 32, 8),
    "meta-llama/Llama-3.2-3B": _decoder("llama", 3072, 28, 8192, 128256, 24, 8),
    "meta-llama/Llama-3.1-8B": _decoder("llama", 4096, 32, 14336, 128256, 32, 8),
    "Qwen/Qwen2.5-0.5B": _decoder("qwen2", 896, 24, 4864, 151936, 14, 2),
    "Qwen/Qwen2.5-1.5B": _decoder("qwen2", 1536, 28, 8960, 151936, 12, 2),
    "Qwen/Qwen2.5-3B": _decoder("qwen2", 2048, 36, 11008, 151936, 16, 2),
    "Qwen/Qwen2.5-7B": _decoder("qwen2", 3584, 28, 18944, 152064, 28, 4),
}


def shape_of(model_id: str) -> Shape | None:
    """A model's shape: of an embedded model or a folder from its config.json, of some hub ids by heart; else None."""
    if model_id.startswith("embedded:"):
        try:
            return _read(Path(model_folder(model_id)))
        except StorageError:  # its package is not installed here, and need not be where only plans are made
            return _KNOWN["sentence-transformers/all-MiniLM-L6-v2"]
    if is_folder(model_id):
        return _read(Path(model_id))
    # The instruction-tuned ones are as large as the others; bert's short ids are the old names of google-bert's.
    for known in (model_id, model_id.removesuffix("-Instruct"), f"google-bert/{model_id}"):
        if known in _KNOWN:
            return _KNOWN[known]
    return None


def _read(folder: Path) -> Shape | None:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        family = config["model_type"]
        if family not in ("bert", "llama", "qwen2"):
            return None
        heads = int(config["num_attention_heads"])
        return Shape(
            family=family,
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            inner=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or config["hidden_size"] // heads),
            positions=int(config.get("max_position_embeddings", 0)) if family == "bert" else 0,
        )
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        # An estimate is a help, never a reason to stop: what cannot be read is unknown.
        return None
