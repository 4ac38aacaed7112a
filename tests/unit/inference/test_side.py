"""Models that PEFT does not know, which the engine computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.inference.conftest import LABELS, tokenizer
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec
from tuners.qst.config import Config as QstConfig
from tunery.inference.card import AdapterCard, BaseModelCard, ObjectiveCard
from tunery.inference.predictor import Predictor

TEXTS = ("the cat sat", "she is smart", "john gave him a present .", "no , i think that is a book")


class Rows:
    def __init__(self) -> None:
        ids = tokenizer(bert=False)(list(TEXTS))["input_ids"]
        self._all = [Example(np.array(row, np.int32), None, float(place % 2)) for place, row in enumerate(ids)]
        self.lengths: NDArray[np.int32] = np.array([len(row) for row in ids], np.int32)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Example:
        return self._all[index]


@pytest.fixture(scope="module")
def side(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tuner = tmp_path_factory.mktemp("side"), QstConfig(reduction=4)
    pack = Pack(Base.load(BaseSpec(str(llama), quantisation=tuner.quantisation, beside=True)))
    train = TrainConfig(epochs=3, batch_size=2, learning_rate=1e-2)
    pack.join(SeatSpec("a", tuner, train, HeadSpec("classification", LABELS), Rows(), {}))
    while not pack.progress("a").finished:
        pack.step()
    pack.export("a", folder)
    tokenizer(bert=False).save_pretrained(folder)
    AdapterCard(
        task="acceptability",
        kind="classification",
        labels=LABELS,
        method="qst",
        tuner=tuner.model_dump(mode="json"),
        base=BaseModelCard(id=str(llama), quantisation=tuner.quantisation),
        objective=ObjectiveCard(name="mcc", value=0.5),
        max_length=32,
    ).write(folder)
    return folder


def test_it_is_computed_on_four_bits_unless_asked_not_to(side: Path) -> None:
    given = [(text, None) for text in TEXTS]
    four_bits, whole = (Predictor.load(side, quantised=quantised).logits(given) for quantised in (True, False))
    assert four_bits.shape == whole.shape == (4, 2)
    apart = np.abs(four_bits - whole).max()
    assert 1e-4 < apart < 1.0, "the same model, on weights that are not rounded"
    assert np.array_equal(four_bits, Predictor.load(side).logits(given))
