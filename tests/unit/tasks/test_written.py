"""Scores of texts, by hand where that can be done."""

from __future__ import annotations

import pytest

from tunery.tasks.written import written

ALL = {"rouge1", "rouge2", "rougeL", "bleu"}


@pytest.mark.parametrize(
    ("language", "texts"),
    [("en", ["the cat sat on the mat", "a dog barks at night"]), ("zh", ["感冒了可以吃药", "高血压患者要注意饮食"])],
)
def test_the_same_text_has_1_and_another_less(language: str, texts: list[str]) -> None:
    assert written(texts, texts, language=language) == pytest.approx(dict.fromkeys(ALL, 1.0))  # type: ignore[arg-type]
    swapped = written(texts, texts[::-1], language=language)  # type: ignore[arg-type]
    assert all(value < 0.2 for value in swapped.values())


def test_by_hand() -> None:
    # Words: 3 of 3 and of 4; pairs: 2 of 2 and of 3; the longest common subsequence has 3.
    english = written(["the cat sat"], ["the cat sat down"], language="en")
    assert english["rouge1"] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert english["rouge2"] == pytest.approx(2 * 1 * (2 / 3) / (5 / 3))
    assert english["rougeL"] == pytest.approx(english["rouge1"])
    chinese = written(["我 喜欢 苹果"], ["我 喜欢 吃 苹果"], language="zh")
    assert chinese["rouge1"] == pytest.approx(2 * 1 * 0.75 / 1.75)


def test_an_empty_answer_has_0_and_spoils_nothing() -> None:
    for language, text in (("en", "a cat"), ("zh", "一只猫")):
        assert written([""], [text], language=language)["rougeL"] == 0  # type: ignore[arg-type]
        assert written(["", text], [text, text], language=language)["rougeL"] == pytest.approx(0.5)  # type: ignore[arg-type]
