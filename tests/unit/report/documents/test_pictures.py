"""What is drawn, what is left out and why; labels in any language."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from tests.unit.report.documents.runs import MadeUp
from tests.unit.report.states import state, study, trial
from tunery.report.documents import Report, make
from tunery.report.documents.curves import Curves
from tunery.report.documents.facts import Facts, collect
from tunery.report.documents.fonts import OWN, fonts_for
from tunery.report.documents.importance import weigh
from tunery.report.documents.pictures import best_against_cost, draw
from tunery.runs import StudyState

ALL = ["best_so_far.png", "data_scale_comparison.png", "importance.png", "loss_curves.png", "method_comparison.png",
       "parallel_coordinates.png"]  # fmt: skip


def test_a_matrix_has_every_picture_and_each_shows_something(report: Report) -> None:
    pictures = {name: content for name, content in report.files.items() if name.endswith(".png")}
    assert sorted(pictures) == ALL
    for name, content in pictures.items():
        image = Image.open(io.BytesIO(content)).convert("RGB")
        assert min(image.size) > 200, name
        colours = image.getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 50, f"{name} is blank"


def test_the_same_run_gives_the_same_pictures(facts: Facts, report: Report) -> None:
    assert draw(facts).files["best_so_far.png"] == report.files["best_so_far.png"]


def test_what_has_nothing_to_show_is_left_out_with_the_reason() -> None:
    one = study("cola", (trial(0, "finished", 0.5),), best=0)
    report = make(state(one, status="finished"), None, Curves())
    assert not [name for name in report.files if name.endswith(".png")]
    assert report.left_out == {
        "data_scale_comparison.png": "all studies have the same data.max_train",
        "method_comparison.png": "all studies have the same tuner.method",
        "loss_curves.png": "the run's folder has no record of its evaluations",
        "best_so_far.png": "the run's folder has no record of its evaluations",
        "importance.png": "its plan cannot be read",
        "parallel_coordinates.png": "no two trials differ in anything that was drawn or is in the matrix",
    }
    assert "parallel\\_coordinates.png: no two trials differ" in report.files["report.md"].decode()


def test_the_best_so_far_only_rises_and_is_set_against_what_was_spent(facts: Facts) -> None:
    result = facts.results[0]
    costs, bests = best_against_cost(facts, result)
    assert costs == sorted(costs)
    assert bests == sorted(bests)
    searched = [t for t in result.study.trials if t.rerun_of is None]
    assert bests[-1] == max(t.objective or 0.0 for t in searched)
    # All but the second between a trial's last report and its end.
    assert costs[-1] == pytest.approx(sum(facts.seconds(result.study.name, t) - 1 for t in searched), abs=0.1)


def test_importance_finds_what_the_result_depends_on(tmp_path: Path) -> None:
    text = """
apiVersion: tunery/v1
kind: Sweep
name: weigh
model: {id: "embedded:minilm"}
tasks: [cola, rte]
tuner: {method: lora, rank: 8, alpha: 16}
search:
  trials: 24
  space: {train.learning_rate: {log_uniform: [1.0e-5, 1.0e-2]}, tuner.dropout: {uniform: [0.0, 0.2]}}
overrides: {rte: {search.trials: 3}}
"""
    made = MadeUp(tmp_path, text)
    weighed = weigh(collect(made.state, made.plan, Curves()))
    assert weighed.shares["cola"]["train.learning_rate"] > 0.8
    assert sum(weighed.shares["cola"].values()) == pytest.approx(1)
    assert weighed.lacking == {"rte": "3 trials ran to their end; it takes 4"}


def test_importance_leaves_out_what_was_trained_again_or_pruned(facts: Facts) -> None:
    def searched(each: StudyState) -> StudyState:
        kept = tuple(t for t in each.trials if t.rerun_of is None and t.status == "finished")
        return each.model_copy(update={"trials": kept})

    alone = facts.state.model_copy(update={"studies": tuple(map(searched, facts.state.studies))})
    assert weigh(facts).shares == weigh(replace(facts, state=alone)).shares


def test_a_label_that_no_font_has_is_written_as_codes_and_told() -> None:
    fonts = fonts_for("a中文", files=[])
    assert fonts.families == (OWN,)
    assert fonts.label("模 中 $") == r"模 \u4e2d \$", "what was not asked for is left as it is"
    assert fonts.problem.startswith("no installed font has 中文: labels show such characters as codes; install one")
    assert fonts_for("aé±", files=[]).problem == ""


def test_an_installed_font_with_the_characters_is_used(tmp_path: Path) -> None:
    files = [font(tmp_path / "a.ttf", "Some Hei", "中"), font(tmp_path / "b.ttf", "Whole Hei", "中文")]
    broken = tmp_path / "0.ttf"
    broken.write_bytes(b"no font")
    fonts = fonts_for("a中文", files=[str(broken), *files])
    assert (fonts.families, fonts.problem) == ((OWN, "Whole Hei"), "")
    assert fonts.label("中文") == "中文"
    some = fonts_for("a中文", files=files[:1])
    assert some.families == (OWN, "Some Hei")
    assert some.missing == {"文"}


def test_chinese_values_are_drawn_or_told() -> None:
    trials = tuple(trial(n, "finished", 0.5 + n / 10, config={"tuner.bias": value}) for n, value in enumerate("甲乙"))
    drawn = draw(Facts(state(study("cola", trials, best=1), status="finished")))
    assert "parallel_coordinates.png" in drawn.files
    installed = not fonts_for("甲乙").missing
    assert bool(drawn.warnings) is not installed


def font(path: Path, family: str, letters: str) -> str:
    """A font that has these letters, each a square."""
    names = [".notdef", *(f"u{ord(letter):x}" for letter in letters)]
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 50)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)
