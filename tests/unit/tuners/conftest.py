"""Tiny random models of each family, and seats for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, SeatSpec
from tuners.lora.config import Config as LoraConfig

VOCABULARY = 120
DEVICE = torch.device(os.environ.get("TUNERY_TEST_DEVICE", "cpu"))
"""Where bases are loaded; what is compared with theirs is computed there too, or moved."""


class Sentences:
    """Random tokens; whether the first is above the middle is the label, so there is something to learn."""

    def __init__(self, size: int, *, seed: int = 0, classes: int = 2, longest: int = 14) -> None:
        draw = np.random.default_rng(seed)
        self.lengths: NDArray[np.int32] = draw.integers(3, longest + 1, size).astype(np.int32)
        self._rows = [draw.integers(5, VOCABULARY, length).astype(np.int32) for length in self.lengths]
        self._classes = classes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        share = (float(self._rows[index][1]) - 5) / (VOCABULARY - 5)
        label = share if self._classes == 1 else float(int(share * self._classes))
        return Example(self._rows[index], None, label)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share the cores, and threads that wait for each other are slow."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sentences() -> type[Sentences]:
    return Sentences


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """tiny("bert") -> a folder with a random model of that family."""
    import transformers as t

    common = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0, "initializer_range": 0.2}
    sizes = common | {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    grouped = sizes | {"num_key_value_heads": 2}
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    configs: dict[str, tuple[Any, dict[str, Any]]] = {
        "bert": (t.BertConfig, sizes | rates),
        "roberta": (t.RobertaConfig, sizes | rates),
        "distilbert": (t.DistilBertConfig, common | {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}),
        "llama": (t.LlamaConfig, grouped),
        "qwen2": (t.Qwen2Config, grouped),
        "qwen3": (t.Qwen3Config, grouped | {"head_dim": 16}),
        "mistral": (t.MistralConfig, grouped | {"sliding_window": None}),
    }
    made: dict[tuple[Any, ...], str] = {}

    def make(family: str, *, pooler: bool = True, **changes: Any) -> str:
        """`changes`: of the configuration."""
        key = (family, pooler, *sorted(changes.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                extra = {} if pooler else {"add_pooling_layer": False}
                kind, fields = configs[family]
                config = kind(**fields | changes)
                model = t.BertModel(config, **extra) if family == "bert" else t.AutoModel.from_config(config)
            model.save_pretrained(folder)
            made[key] = str(folder)
        return made[key]

    return make


@pytest.fixture(scope="session")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """generating("llama", tied=True) -> a folder with a random model that generates."""
    import transformers as t

    made: dict[tuple[str, bool], str] = {}
    classes = {"llama": t.LlamaConfig, "qwen2": t.Qwen2Config,
               "qwen3": t.Qwen3Config, "mistral": t.MistralConfig}  # fmt: skip

    def make(family: str, *, tied: bool = True) -> str:
        if (family, tied) not in made:
            config = classes[family](
                vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, intermediate_size=64, max_position_embeddings=64,
                initializer_range=0.2, tie_word_embeddings=tied,
                pad_token_id=0, eos_token_id=3, bos_token_id=None, head_dim=8,
                **({"sliding_window": None} if family == "mistral" else {}),
            )  # fmt: skip
            folder = tmp_path_factory.mktemp(family)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                t.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            made[family, tied] = str(folder)
        return made[family, tied]

    return make


def load_base(spec: BaseSpec, **options: Any) -> Base:
    """On the device that the tests run on."""
    return Base.load(spec, DEVICE, **options)


@pytest.fixture(scope="session")
def base_of(tiny: Callable[..., str]) -> Callable[..., Base]:
    """base_of("bert") -> a base that all tests may share: a pack leaves nothing behind in it."""
    made: dict[tuple[Any, ...], Base] = {}

    def load(family: str, *, quantisation: Any = "none", dtype: Any = "float32", **model: Any) -> Base:
        key = (family, quantisation, dtype, *sorted(model.items()))
        if key not in made:
            made[key] = load_base(BaseSpec(tiny(family, **model), quantisation=quantisation, dtype=dtype))
        return made[key]

    return load


def seat_spec(name: str, *, classes: int = 2, examples: int = 40, config: Any = LoraConfig, **fields: Any) -> SeatSpec:
    """A seat with what is given, defaults for the rest."""
    tuner = {key: fields.pop(key) for key in list(fields) if key in config.model_fields}
    train_set = fields.pop("train_set", None) or Sentences(examples, seed=1, classes=classes)
    fields = {"batch_size": 8, "epochs": 50, "learning_rate": 1e-3} | fields
    labels = () if classes == 1 else tuple(f"label {index}" for index in range(classes))
    return SeatSpec(
        name=name,
        tuner=config(**tuner),
        train=TrainConfig(**fields),
        head=HeadSpec("regression" if classes == 1 else "classification", labels),
        train_set=train_set,
        eval_sets={"dev": Sentences(21, seed=2, classes=classes)},
    )


@pytest.fixture(scope="session")
def seat() -> Callable[..., SeatSpec]:
    """seat("a", rank=4, seed=1, learning_rate=1e-3, classes=3)"""
    return seat_spec


@pytest.fixture
def adapter_folder(tmp_path: Path) -> Path:
    return tmp_path / "adapter"


WORDS, STOP = 120, 3


class Sums:
    """A prompt of a few words; the answer repeats the first one in its own way, and stops."""

    def __init__(self, size: int, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self._rows = []
        for _ in range(size):
            prompt = draw.integers(5, WORDS, draw.integers(2, 12)).astype(np.int32)
            answer = (prompt[0] + np.arange(draw.integers(1, 6))) % (WORDS - 5) + 5
            self._rows.append(Example(np.append(np.append(prompt, answer), STOP).astype(np.int32), None, len(prompt)))
        self.lengths: NDArray[np.int32] = np.array([len(row.ids) for row in self._rows], np.int32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        return self._rows[index]


def without_dropout(folder: str, to: Path) -> str:
    """The same model: a plain loop cannot draw the engine's masks."""
    model = transformers.AutoModel.from_pretrained(folder)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout",
                 "seq_classif_dropout", "classifier_dropout"):  # fmt: skip
        if getattr(model.config, name, None) is not None:
            setattr(model.config, name, 0.0)
    model.save_pretrained(to)
    return str(to)
