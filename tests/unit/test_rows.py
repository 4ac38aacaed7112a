"""Rows of a task from a folder: what is held out, what repeats, and what an answer's row is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.datasets import Fields, Row, read_path
from storage.errors import DataError, MissingSplitError
from storage.prompts import columns_of, filled
from tunery import tasks
from tunery.rows import Place, evaluation_sets, training_sets

SENTIMENT, MEDICAL = tasks.get("chnsenticorp"), tasks.get("medqa_zh")
ASKED = Fields("", None, "answer", (), "{instruction}\n{question}")


def written(root: Path, task: tasks.Task, split: str, rows: list[dict[str, Any]]) -> Path:
    folder = root / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return root


def reviews(root: Path) -> Path:
    train = [{"text": text, "label": 1} for text in ("好", "坏", "好 ", "新", "旧", "新")]
    written(root, SENTIMENT, "train", train)
    return written(root, SENTIMENT, "validation", [{"text": "旧", "label": "正面"}, {"text": "别", "label": 0}])


def questions(root: Path, count: int) -> Path:
    rows = [{"instruction": "你是医生", "question": f"问题{n}", "answer": f"回答{n}"} for n in range(count)]
    return written(root, MEDICAL, "train", rows)


def sets(task: tasks.Task, root: Path, **fields: Any) -> Any:
    given = {"max_train": None, "max_eval": None, "deduplicate": False} | fields
    return training_sets(task, Place("path", root), **given)


def test_repeats_are_counted_and_kept(tmp_path: Path) -> None:
    found = sets(SENTIMENT, reviews(tmp_path))
    assert (found.repeats.within, found.repeats.shared, found.repeats.dropped) == (2, 1, False)
    assert len(found.train.rows) == 6


def test_repeats_are_left_out_of_the_training_rows_where_that_is_asked(tmp_path: Path) -> None:
    found = sets(SENTIMENT, reviews(tmp_path), deduplicate=True)
    assert (found.repeats.within, found.repeats.shared, found.repeats.dropped) == (2, 1, True)
    assert [row.text for row in found.train.rows] == ["好", "坏", "新"]
    assert [row.text for row in found.evals["validation"].rows] == ["旧", "别"]
    # So many rows as were asked for, of those that are left.
    assert len(sets(SENTIMENT, tmp_path, deduplicate=True, max_train=3).train.rows) == 3


def test_evaluation_rows_that_are_not_there_are_held_out_of_the_training_rows(tmp_path: Path) -> None:
    found = sets(MEDICAL, questions(tmp_path, 100))
    held, trained = ({row.text for row in rows.rows} for rows in (found.evals["validation"], found.train))
    assert (len(held), len(trained)) == (20, 80), "a fifth at most"
    assert not held & trained
    # Neither the sample nor its seed changes what is held out: scores of two sweeps are of the same rows.
    again = training_sets(MEDICAL, Place("path", tmp_path, seed=5), max_train=30, max_eval=None, deduplicate=True)
    assert {row.text for row in again.evals["validation"].rows} == held
    assert {row.text for row in again.train.rows} < trained
    assert evaluation_sets(MEDICAL, Place("path", tmp_path))["validation"].fingerprint == (
        found.evals["validation"].fingerprint
    )


def test_a_text_that_is_held_out_is_nowhere_in_training(tmp_path: Path) -> None:
    rows = [{"instruction": "", "question": f"问题{n % 30}", "answer": f"回答{n}"} for n in range(90)]
    found = sets(MEDICAL, written(tmp_path, MEDICAL, "train", rows))
    held, trained = ({row.text for row in rows.rows} for rows in (found.evals["validation"], found.train))
    assert (len(held), len(found.evals["validation"].rows)) == (6, 18), (
        "of three rows a text all or none, a fifth at most"
    )
    assert not held & trained


def test_rows_too_few_to_hold_any_out_say_so(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="has 4 rows, of which none can be held out: give the task a split 'validation'"
    ):
        sets(MEDICAL, questions(tmp_path, 4))


def test_a_split_of_its_own_is_used_where_it_is_there(tmp_path: Path) -> None:
    questions(tmp_path, 50)
    written(tmp_path, MEDICAL, "validation", [{"instruction": "a", "question": "b", "answer": "c"}])
    found = sets(MEDICAL, tmp_path)
    assert len(found.train.rows) == 50
    assert list(found.evals["validation"].rows) == [Row("a\nb", None, 0.0, "c")]
    with pytest.raises(MissingSplitError, match=r"no train\.parquet"):
        sets(MEDICAL, tmp_path / "elsewhere")


def asked(tmp_path: Path, *rows: dict[str, Any], prompt: str = ASKED.prompt) -> Any:
    written(tmp_path, MEDICAL, "train", list(rows))
    return read_path(tmp_path, MEDICAL.folder, "train", Fields("", None, "answer", (), prompt)).rows


def test_what_is_asked_is_put_together_and_said_once(tmp_path: Path) -> None:
    rows = asked(
        tmp_path,
        {"instruction": "你是医生。", "question": " 头痛？ ", "answer": " 休息。\n"},
        {"instruction": "头痛？", "question": "头痛？", "answer": "休息。"},
        {"instruction": "", "question": "头痛？", "answer": "休息。"},
        {"instruction": None, "question": "{头痛}？", "answer": "休息。"},
    )
    assert [row.text for row in rows] == ["你是医生。\n头痛？", "头痛？", "头痛？", "{头痛}？"]
    assert {row.answer for row in rows} == {"休息。"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "question": "b"}, "no column 'answer'; there is: instruction, question"),
        ({"instruction": "a", "question": "b", "answer": ""}, "column 'answer' is empty"),
        ({"instruction": "a", "question": "b", "answer": 3}, "column 'answer' is not text: got 3"),
        ({"instruction": "a", "question": ["b"], "answer": "c"}, "column 'question' is not text"),
        ({"question": "b", "answer": "c"}, "no column 'instruction'"),
        (
            {"instruction": " ", "question": None, "answer": "c"},
            "nothing is asked: 'instruction', 'question' are empty",
        ),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"train\.jsonl:2: {message}"):
        asked(tmp_path, {"instruction": "a", "question": "b", "answer": "c"}, row)


def test_the_columns_of_a_prompt() -> None:
    assert columns_of("{a} and {b_2}, {a}") == ("a", "b_2")
    assert columns_of("{the user's question}{0}{a.b}{0[1]}") == ("the user's question", "0", "a.b", "0[1]")
    for wrong in ("{}", "{a!r}", "{a:>3}", "{a"):
        with pytest.raises(ValueError, match=r"brace|expected"):
            columns_of(wrong)


def test_a_prompt_has_its_columns_as_they_are_named_and_what_is_asked_twice_once() -> None:
    def of(prompt: str, **values: str) -> str:
        asked, problem = filled(prompt, values, lambda column: (values[column], ""))
        assert not problem
        return asked

    odd = {"user question": "why {x}?", "0": "b", "a.b": "c"}
    assert of("{{so}} {user question} {0} {a.b}", **odd) == "{so} why {x}? b c"
    assert of("{a}\n{b}", a="x", b=" x") == "x", "nothing but columns"
    assert of("Is {a} like {b}?", a="x", b="x") == "Is x like x?"
