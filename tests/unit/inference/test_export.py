from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.unit.inference.conftest import LABELS, make_adapter
from tunery.errors import ConflictError, TuneryError
from tunery.inference import export as exporting
from tunery.inference.export import export
from tunery.inference.predictor import Predictor

TEXT = "The book was written by John."


def test_an_adapter_is_copied_whole(adapter: Path, tmp_path: Path) -> None:
    done = export(str(adapter), tmp_path / "out" / "here")
    assert done.files == tuple(sorted(path.name for path in adapter.iterdir()))
    assert (done.merged, done.max_difference) == (False, None)
    assert Predictor.load(tmp_path / "out" / "here")(TEXT) == Predictor.load(adapter)(TEXT)


@pytest.mark.parametrize("which", ["adapter", "llama_adapter", "value_adapter"])
def test_a_merged_model_says_what_the_adapter_says(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    adapter = request.getfixturevalue(which)
    done = export(str(adapter), tmp_path / "merged", merge=True)
    assert done.max_difference is not None
    assert 0.0 <= done.max_difference < 1e-4
    assert done.max_difference_quantised is None
    inputs = [(TEXT, None), ("No.", None)]
    own, merged = Predictor.load(adapter), Predictor.load(tmp_path / "merged")
    assert np.abs(own.logits(inputs) - merged.logits(inputs)).max() < 1e-4


def test_a_merged_model_loads_without_this_project(adapter: Path, tmp_path: Path) -> None:
    export(str(adapter), tmp_path / "merged", merge=True)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        inputs = AutoTokenizer.from_pretrained(tmp_path / "merged")(TEXT, return_tensors="pt")
        scores = model(**inputs).logits[0].softmax(-1).tolist()
    assert model.config.id2label == dict(enumerate(LABELS))
    assert Predictor.load(adapter)(TEXT).scores == pytest.approx(dict(zip(LABELS, scores, strict=True)), abs=1e-5)


def test_merging_a_four_bit_adapter_tells_what_it_costs(bert: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "q", bert, base={"id": str(bert), "quantisation": "nf4"})
    done = export(str(folder), tmp_path / "merged", merge=True)
    assert done.max_difference is not None
    assert done.max_difference_quantised is not None
    assert done.max_difference < 1e-4
    assert done.max_difference_quantised > 1e-3


def test_a_merge_that_went_wrong_is_not_kept(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporting._TOLERANCE, "float32", -1.0)
    with pytest.raises(TuneryError, match="nothing was written"):
        export(str(adapter), tmp_path / "merged", merge=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_overwritten(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("full", "file"):
        with pytest.raises(ConflictError, match="nothing was written"):
            export(str(adapter), tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert "tunery.json" in export(str(adapter), tmp_path / "empty").files


def test_a_merged_model_is_not_merged_again(adapter: Path, tmp_path: Path) -> None:
    export(str(adapter), tmp_path / "merged", merge=True)
    with pytest.raises(ConflictError, match="merged already"):
        export(str(tmp_path / "merged"), tmp_path / "again", merge=True)
