from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from storage.datasets import data_fingerprint
from tunery.errors import InputError, NotFoundError
from tunery.inference.card import AdapterCard, BaseModelCard, ObjectiveCard, Score

CARD = AdapterCard(
    task="cola",
    kind="classification",
    labels=("unacceptable", "acceptable"),
    base=BaseModelCard(id="embedded:minilm", quantisation="nf4-double"),
    objective=ObjectiveCard(name="mcc", value=0.1 + 0.2),
    data_fingerprint="ab12",
    method="qlora",
    run_id="glue-0a1b2c3d",
    study="cola",
    trial=0,
)


def test_a_card_reads_back_as_it_was(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    assert AdapterCard.read(tmp_path) == CARD


def test_a_card_of_a_newer_tunery_is_read(tmp_path: Path) -> None:
    CARD.write(tmp_path)
    stored = json.loads((tmp_path / "tunery.json").read_text())
    (tmp_path / "tunery.json").write_text(json.dumps(stored | {"colour": "blue"}))
    assert AdapterCard.read(tmp_path) == CARD


def test_a_broken_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no tunery\.json"):
        AdapterCard.read(tmp_path)
    (tmp_path / "tunery.json").write_text("{")
    with pytest.raises(InputError, match=r"tunery\.json is not the card"):
        AdapterCard.read(tmp_path)


def test_a_score_survives_the_tags_of_a_version() -> None:
    assert CARD.tags()["tunery.trial"] == "0"
    assert Score.from_tags(CARD.tags()) == CARD.score
    assert CARD.score.value != 0.3  # no digit is lost on the way


@pytest.mark.parametrize("change", [{"tunery.objective_value": "nan"}, {"tunery.objective_value": "much"}, {}])
def test_tags_without_a_number_are_no_score(change: dict[str, str]) -> None:
    tags = CARD.tags() | change
    if not change:
        del tags["tunery.data_fingerprint"]
    assert Score.from_tags(tags) is None


def test_scores_are_comparable_on_the_same_metric_and_rows() -> None:
    score = Score("mcc", 0.5, "a")
    assert score.comparable(Score("mcc", math.nan, "a"))
    assert not score.comparable(Score("f1", 0.5, "a"))
    assert not score.comparable(Score("mcc", 0.5, "b"))


def test_the_data_s_fingerprint_knows_splits_apart_and_no_order() -> None:
    assert data_fingerprint({"a": "1", "b": "2"}) == data_fingerprint({"b": "2", "a": "1"})
    assert data_fingerprint({"a": "1", "b": "2"}) != data_fingerprint({"a": "2", "b": "1"})


def test_the_card_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'transformers', 'numpy', 'ray'} & set(sys.modules)"
    imports = "import tunery.inference.card, tunery.inference.source"
    code = f"import sys; sys.path[:0] = {sys.path!r}; {imports}; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
