"""An adapter that the engine trained and exported says here what it said in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from storage.tokens import encoder
from tests.unit.inference.conftest import LABELS, make_base, tokenizer
from tuners.config import TrainConfig, TunerConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec
from tuners.lora.config import Config as Lora
from tuners.qlora.config import Config as Qlora
from tuners.qst.config import Config as Qst
from tunery.inference.card import AdapterCard, BaseModelCard, ObjectiveCard
from tunery.inference.loading import load
from tunery.inference.predictor import Input, Predictor

INPUTS: list[Input] = [
    ("The book was written by John.", None),
    ("No.", None),
    ("She gave him a present, I think that he is smart.", None),
    ("The cat sat on the mat.", None),
    ("Dog sat by a book.", None),
    ("I think that is he smart.", None),
]


class Tokens(list[Example]):
    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(example.ids) for example in self], dtype=np.int32)


def tokens(*, bert: bool) -> Tokens:
    ids, types = encoder(tokenizer(bert=bert), 32)([text for text, _ in INPUTS], None)
    kinds = [np.array(each, np.int8) for each in types] if types else [None] * len(ids)
    return Tokens(
        Example(np.array(x, np.int32), t, float(n % 2)) for n, (x, t) in enumerate(zip(ids, kinds, strict=True))
    )


def train(base: Path, folder: Path, tuner: TunerConfig, *, bert: bool) -> np.ndarray:
    """A few steps; returns the logits of the engine's own evaluation and leaves the folder complete."""
    examples = tokens(bert=bert)
    schedule = TrainConfig(learning_rate=5e-3, epochs=3, batch_size=2, max_length=32)
    pack = Pack(Base.load(BaseSpec(str(base), None, tuner.quantisation, beside=tuner.trains_beside)))
    head = HeadSpec("classification", LABELS)
    pack.join(SeatSpec("seat", tuner, schedule, head, examples, {"validation": examples}))
    while not pack.progress("seat").finished:
        pack.step()
    logits = pack.evaluate(["seat"])["seat"]["validation"].logits
    pack.export("seat", folder)
    tokenizer(bert=bert).save_pretrained(folder)
    AdapterCard(
        task="acceptability",
        kind="classification",
        labels=LABELS,
        method=tuner.method,
        tuner=tuner.model_dump(mode="json"),
        base=BaseModelCard(id=str(base), quantisation=tuner.quantisation),
        objective=ObjectiveCard(name="mcc", value=0.0),
        max_length=32,
    ).write(folder)
    return logits


@pytest.mark.parametrize("which", ["bert", "llama"])
@pytest.mark.parametrize(
    "tuner",
    [Lora(rank=4, dropout=0.1), Qlora(rank=4), Qlora(rank=2, double_quantisation=False), Qst(reduction=4)],
    ids=["lora", "nf4-double", "nf4", "qst"],
)
def test_the_logits_are_those_of_training(
    which: str, tuner: TunerConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(which)
    trained = train(base, tmp_path / "adapter", tuner, bert=which == "bert")
    ours = Predictor.load(tmp_path / "adapter").logits(INPUTS, batch_size=4)
    assert np.abs(ours - trained).max() < 1e-3
    assert np.abs(trained.std(axis=0)).max() > 1e-2  # the texts are told apart


def test_a_side_network_is_computed_on_four_bits_unless_asked_not_to(llama: Path, tmp_path: Path) -> None:
    train(llama, tmp_path / "side", Qst(reduction=4), bert=False)
    four_bits, whole = (Predictor.load(tmp_path / "side", quantised=each).logits(INPUTS) for each in (True, False))
    assert np.abs(four_bits - whole).max() > 1e-2
    assert np.corrcoef(four_bits.ravel(), whole.ravel())[0, 1] > 0.8, "the same model, on weights that are not rounded"


def test_a_base_without_a_pooler_brings_its_own(tmp_path: Path) -> None:
    """The engine trains the pooler then, and the adapter holds it."""
    base = make_base(tmp_path / "base", bert=True)
    BertModel.from_pretrained(base, add_pooling_layer=False).save_pretrained(base)
    trained = train(base, tmp_path / "adapter", Lora(rank=4), bert=True)
    ours = Predictor.load(tmp_path / "adapter").logits(INPUTS)
    assert np.abs(ours - trained).max() < 1e-3


def test_loading_draws_nothing_from_the_global_stream(adapter: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load(adapter, AdapterCard.read(adapter), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
