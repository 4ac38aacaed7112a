"""Predictions: the same as PEFT's own, in order, whatever shares the batch."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.unit.inference.conftest import LABELS, make_adapter
from tunery.errors import InputError, NotFoundError
from tunery.inference.card import AdapterCard
from tunery.inference.predictor import Input, Predictor
from tunery.inference.running import InTransformers

TEXTS: list[Input] = [
    ("The book was written by John.", None),
    ("No.", None),
    ("She gave him a present, I think that he is smart.", None),
    ("The cat sat on the mat.", None),
    ("Dog.", None),
]


def loaded(predictor: Predictor) -> torch.nn.Module:
    assert isinstance(predictor._running, InTransformers)
    return predictor._running.model


def by_peft_alone(folder: Path, text: str, pair: str | None = None) -> np.ndarray:
    card = AdapterCard.read(folder)
    model = AutoModelForSequenceClassification.from_pretrained(card.base.id, num_labels=len(card.labels) or 1)
    model = PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        logits = model(**AutoTokenizer.from_pretrained(folder)(text, pair, return_tensors="pt")).logits[0]
    return np.asarray(logits)


@pytest.mark.parametrize("which", ["adapter", "llama_adapter"])
def test_logits_are_peft_s_own_for_each_text_alone(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    together = Predictor.load(folder).logits(TEXTS, batch_size=2)
    alone = np.stack([by_peft_alone(folder, text) for text, _ in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(alone[0] - alone[1]).max() > 1e-2  # texts are told apart at all


def test_pairs_carry_their_token_types(adapter: Path) -> None:
    pairs: list[Input] = [("The cat sat.", "A dog sat on the mat."), ("No", "I think that he is smart")]
    together = Predictor.load(adapter).logits(pairs)
    assert np.abs(together - np.stack([by_peft_alone(adapter, *pair) for pair in pairs])).max() < 1e-5


def test_a_prediction_has_the_label_and_all_probabilities(adapter: Path) -> None:
    prediction = Predictor.load(str(adapter))("The book was written by John.")
    assert tuple(prediction.scores) == LABELS
    assert sum(prediction.scores.values()) == pytest.approx(1.0)
    assert prediction.label == max(prediction.scores, key=lambda label: prediction.scores[label])
    assert prediction.score == prediction.scores[prediction.label]


def test_a_regression_gives_its_value(value_adapter: Path) -> None:
    prediction = Predictor.load(value_adapter)("The cat sat.", "A dog sat.")
    assert (prediction.label, prediction.scores) == (None, {})
    assert prediction.score == pytest.approx(
        float(by_peft_alone(value_adapter, "The cat sat.", "A dog sat.")[0]), abs=1e-5
    )


def test_many_come_back_in_order_and_are_read_in_windows(adapter: Path) -> None:
    predictor = Predictor.load(adapter)
    read = 0

    def inputs() -> Iterator[Input]:
        nonlocal read
        for number in range(200):
            read += 1
            yield " ".join(["cat", "dog", "mat"][number % 3] for _ in range(number % 17 + 1)), None

    expected = [predictor(text) for text, _ in inputs()]
    read = 0
    results = predictor.predict_many(inputs(), batch_size=4)
    first = next(results)
    assert read == 64  # 16 batches, not all there is
    for got, wanted in zip([first, *results], expected, strict=True):
        assert got.label == wanted.label
        assert got.score == pytest.approx(wanted.score, abs=1e-5)


def test_nothing_gives_nothing(adapter: Path) -> None:
    assert list(Predictor.load(adapter).predict_many([])) == []


def test_a_long_text_is_cut_as_in_training(adapter: Path) -> None:
    predictor = Predictor.load(adapter)
    long = "cat " * 500
    assert predictor.logits([(long, None)]) == pytest.approx(predictor.logits([("cat " * 30, None)]), abs=1e-5)


def test_a_text_without_tokens_is_named(llama_adapter: Path) -> None:
    with pytest.raises(InputError, match="input 1 has no tokens: ''"):
        Predictor.load(llama_adapter).logits([("cat", None), ("", None)])


def test_single_texts_and_pairs_do_not_mix(adapter: Path) -> None:
    with pytest.raises(InputError, match="1 of 2 inputs have a second text"):
        Predictor.load(adapter).logits([("cat", None), ("cat", "dog")])


@pytest.mark.parametrize("quantisation", ["nf4", "nf4-double"])
@pytest.mark.parametrize("which", ["bert", "llama"])
def test_an_adapter_trained_on_four_bits_runs_on_four_bits(
    which: str, quantisation: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(which)
    four_bit = {"id": str(base), "quantisation": quantisation}
    folder = make_adapter(tmp_path / "q", base, bert=which == "bert", base=four_bit)
    predictor = Predictor.load(folder)
    assert "Linear4bit" in {type(module).__name__ for module in loaded(predictor).modules()}
    first, again = predictor.logits(TEXTS), predictor.logits(TEXTS)
    assert np.array_equal(first, again)

    rounded = Predictor.load(folder, quantised=False)
    before = rounded.logits(TEXTS)
    for (
        name,
        module,
    ) in loaded(rounded).named_modules():  # what training has: every weight rounded, heads and pooler not
        if isinstance(module, torch.nn.Linear) and not any(
            x in name for x in ("lora", "classifier", "score", "pooler")
        ):
            packed, state = bnb.quantize_4bit(
                module.weight.data, blocksize=64, quant_type="nf4", compress_statistics=quantisation == "nf4-double"
            )
            module.weight.data = bnb.dequantize_4bit(packed, state)
    assert np.abs(first - rounded.logits(TEXTS)).max() < 1e-4
    assert np.abs(first - before).max() > 1e-3


def test_a_folder_without_a_card_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no adapter of tunery: there is no tunery\.json"):
        Predictor.load(tmp_path)
    with pytest.raises(NotFoundError, match="no folder"):
        Predictor.load(tmp_path / "nowhere")


def test_a_base_that_is_gone_is_told(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "a"))
    card = AdapterCard.read(folder)
    gone = card.base.model_copy(update={"id": str(tmp_path / "no model")})
    card.model_copy(update={"base": gone}).write(folder)
    with pytest.raises(Exception, match="no model folder"):
        Predictor.load(folder)


def test_an_adapter_without_its_head_would_guess_and_is_refused(adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(adapter, tmp_path / "a"))
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"has the weights classifier\.bias, classifier\.weight: it would guess"):
        Predictor.load(folder)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_weights_are_never_opened(adapter: Path, bert: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    folder, base = (Path(shutil.copytree(source, tmp_path / name)) for source, name in ((adapter, "a"), (bert, "b")))
    (folder / "adapter_model.safetensors").unlink()
    torch.save(Canary(canary), folder / "adapter_model.bin", pickle_module=pickle)
    with pytest.raises(InputError, match="pickles are not loaded"):
        Predictor.load(folder)

    folder = Path(shutil.copytree(adapter, tmp_path / "c"))
    (base / "model.safetensors").unlink()
    torch.save(Canary(canary), base / "pytorch_model.bin", pickle_module=pickle)
    card = AdapterCard.read(folder)
    card.model_copy(update={"base": card.base.model_copy(update={"id": str(base)})}).write(folder)
    with pytest.raises(NotFoundError, match="cannot be loaded"):
        Predictor.load(folder)
    assert not canary.exists()


def test_remote_code_is_never_run(adapter: Path, bert: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    folder, base = (Path(shutil.copytree(source, tmp_path / name)) for source, name in ((adapter, "a"), (bert, "b")))
    (base / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Config: pass\n")
    config = json.loads((base / "config.json").read_text())
    maps = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Config"}
    (base / "config.json").write_text(json.dumps(config | {"auto_map": maps}))
    card = AdapterCard.read(folder)
    card.model_copy(update={"base": card.base.model_copy(update={"id": str(base)})}).write(folder)
    with contextlib.suppress(NotFoundError):  # refused is as good as ignored
        Predictor.load(folder)("cat")
    assert not canary.exists()
