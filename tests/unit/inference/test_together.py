"""Models on one base, asked in one forward: each says what it says alone, through PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.inference.conftest import make_adapter
from tunery.errors import InputError
from tunery.inference.card import AdapterCard
from tunery.inference.engine import base_of, load_base
from tunery.inference.predictor import Prediction, Predictor
from tunery.inference.source import Source
from tunery.inference.together import Asked, Together

TEXTS = ("the cat sat on the mat", "she is smart", "no", "a book was written by john")
TUNER: dict[str, Any] = {"method": "lora", "rank": 4, "alpha": 8}


def source(folder: Path, name: str) -> Source:
    return Source(name, folder, AdapterCard.read(folder))


def another(folder: Path, on: Path, labels: tuple[str, ...], **card: Any) -> Path:
    """An adapter whose layers are not those of the fixture's."""
    with torch.random.fork_rng():
        return make_adapter(folder, on, labels=labels, method="lora", tuner=TUNER, **card)


def opened(sources: dict[str, Source]) -> Together:
    """As a replica opens them."""
    specs = {base_of(each.folder, each.card, device="cpu") for each in sources.values()}
    (spec,) = specs
    together = Together(load_base(spec, "cpu"))
    for name, each in sources.items():
        together.add(name, each)
    return together


@pytest.fixture
def three(tmp_path: Path, bert: Path) -> dict[str, Source]:
    folders = {
        "two": another(tmp_path / "two", bert, ("no", "yes")),
        "five": another(tmp_path / "five", bert, tuple("abcde"), max_length=6),
        "value": another(tmp_path / "value", bert, (), task="of nobody's"),
    }
    return {name: source(folder, f"{name}/1") for name, folder in folders.items()}


def test_each_says_what_it_says_alone(three: dict[str, Source]) -> None:
    together = opened(three)
    asked = [Asked(model, text) for text in TEXTS for model in three]
    found = together.ask(asked)
    for each, said in zip(asked, found, strict=True):
        alone = Predictor.load(three[each.model].folder, device="cpu")(each.text)
        assert isinstance(said, Prediction)
        assert said.label == alone.label
        assert said.score == pytest.approx(alone.score, abs=1e-4)
        assert dict(said.scores) == pytest.approx(dict(alone.scores), abs=1e-4)


def test_a_pair_is_two_texts(tmp_path: Path, bert: Path) -> None:
    folder = another(tmp_path / "pair", bert, ("no", "yes"), task="mrpc")
    together = opened({"pair": source(folder, "pair/1")})
    (said,) = together.ask([Asked("pair", "the cat sat", "she is smart")])
    assert isinstance(said, Prediction)
    assert said.score == pytest.approx(
        Predictor.load(folder, device="cpu")("the cat sat", "she is smart").score, abs=1e-4
    )


def test_models_come_and_take_the_place_of_others(three: dict[str, Source]) -> None:
    together = opened({"two": three["two"]})
    (before,) = together.ask([Asked("two", TEXTS[0])])
    together.add("five", three["five"])
    again, other = together.ask([Asked("two", TEXTS[0]), Asked("five", TEXTS[0])])
    assert isinstance(again, Prediction)
    assert isinstance(before, Prediction)
    assert again.score == pytest.approx(before.score, abs=1e-6)
    assert isinstance(other, Prediction)
    assert other.label in set("abcde")
    together.add("two", three["five"])  # in the place of the one before
    in_its_place, other = together.ask([Asked("two", TEXTS[0]), Asked("five", TEXTS[0])])
    assert in_its_place == other


def test_what_it_cannot_answer_is_said(three: dict[str, Source], adapter: Path) -> None:
    with pytest.raises(InputError, match="does not say how the model was trained: an older tunery wrote it"):
        base_of(adapter, AdapterCard.read(adapter), device="cpu")
    (three["two"].folder / "adapter_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"two cannot be read.*adapter_model.safetensors"):
        opened(three)
