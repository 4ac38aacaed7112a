"""What differs between model families: where a sequence is pooled, what its head is called, what LoRA targets.

A head is written down as its layers, with the names that `AutoModelForSequenceClassification` gives them, so that an
export loads there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from tuners.errors import TunerError


@dataclass(frozen=True)
class HeadLayer:
    """One linear layer of a head: y = activation(dropout(x) W^T + b)."""

    path: str
    """Its full name in the classification model."""
    bias: bool = True
    dropout: bool = False
    """Whether the head's dropout is on its input."""
    activation: Literal["tanh", "relu", "none"] = "none"


@dataclass(frozen=True)
class Family:
    """A model family."""

    prefix: str
    """The backbone's name in the classification model."""
    pool: Literal["first", "last"]
    """The token whose state stands for the sequence."""
    head: tuple[HeadLayer, ...]
    """All trained by the seat; the last one gives the logits."""
    saved: tuple[str, ...]
    """PEFT's modules_to_save."""
    targets: tuple[str, ...]
    """What gets an adapter when the spec names nothing."""
    pooler: str = ""
    """A frozen linear layer with tanh between pooling and head, by its name in the backbone."""
    norm: str = ""
    """The layer after the last one, by its name in the backbone; empty where a layer ends with its own."""
    token_types: bool = False
    positions_after_padding: bool = False
    """Positions start at pad_token_id + 1 instead of 0."""

    def with_trained_pooler(self) -> Family:
        """The same family for a checkpoint without the pooler's weights: random ones teach nothing, so train them."""
        layer = HeadLayer(f"{self.prefix}.{self.pooler}", activation="tanh")
        return replace(self, head=(layer, *self.head), saved=(*self.saved, self.pooler.split(".")[0]), pooler="")


_ATTENTION = ("query", "value")
_DECODER = Family(
    prefix="model",
    pool="last",
    head=(HeadLayer("score", bias=False),),
    saved=("score",),
    targets=("q_proj", "v_proj"),
    norm="norm",
)
_ROBERTA = Family(
    prefix="roberta",
    pool="first",
    head=(
        HeadLayer("classifier.dense", dropout=True, activation="tanh"),
        HeadLayer("classifier.out_proj", dropout=True),
    ),
    saved=("classifier",),
    targets=_ATTENTION,
    positions_after_padding=True,
)
_FAMILIES = {
    "bert": Family(
        prefix="bert",
        pool="first",
        head=(HeadLayer("classifier", dropout=True),),
        saved=("classifier",),
        targets=_ATTENTION,
        pooler="pooler.dense",
        token_types=True,
    ),
    "distilbert": Family(
        prefix="distilbert",
        pool="first",
        head=(HeadLayer("pre_classifier", activation="relu"), HeadLayer("classifier", dropout=True)),
        saved=("pre_classifier", "classifier"),
        targets=("q_lin", "v_lin"),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
}


def family_of(model_type: str) -> Family:
    """The family of a transformers `model_type`. Raises TunerError for one that is not known here."""
    if model_type not in _FAMILIES:
        near = get_close_matches(model_type, _FAMILIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise TunerError(f"models of type {model_type!r} cannot be packed{hint} known: {', '.join(sorted(_FAMILIES))}")
    return _FAMILIES[model_type]


def head_dropout(config: Any) -> float:
    """The probability of the head's dropout, from a transformers configuration."""
    for name in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob"):
        value = getattr(config, name, None)
        if value is not None:
            return float(value)
    return 0.0
