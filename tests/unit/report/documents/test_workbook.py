"""The workbook, opened again."""

from __future__ import annotations

import io
from typing import Any

import pytest
from openpyxl import load_workbook

from tests.unit.report.states import state, study, trial
from tunery.report.documents import Report
from tunery.report.documents.facts import Facts
from tunery.report.documents.workbook import workbook


def opened(content: bytes) -> Any:
    return load_workbook(io.BytesIO(content))


def column(sheet: Any, title: str) -> list[Any]:
    """The cells below a title."""
    places = {cell.value: cell.column for cell in sheet[1]}
    return [row[places[title] - 1] for row in sheet.iter_rows(min_row=2)]


@pytest.fixture(scope="module")
def book(report: Report) -> Any:
    (name,) = (name for name in report.files if name.endswith(".xlsx"))
    assert name == "results_20260921_152000.xlsx", "the time at which the run ended"
    return opened(report.files[name])


def test_every_sheet_has_its_header_in_sight_and_a_filter(book: Any) -> None:
    assert book.sheetnames == ["Results", "Summary", "Trials", "Answers"]
    assert {sheet.title: sheet.freeze_panes for sheet in book} == {
        "Results": "C2", "Summary": "B2", "Trials": "D2", "Answers": "A2",
    }  # fmt: skip
    assert all(sheet.auto_filter.ref and sheet["A1"].font.bold for sheet in book)


def test_results_have_a_row_a_study_with_numbers_that_are_formatted(book: Any, facts: Facts) -> None:
    sheet = book["Results"]
    titles = [cell.value for cell in sheet[1]]
    assert titles[:11] == ["Task", "Study", "Best score (%)", "Trainable share (%)", "Peak memory (GB)",
                           "Total parameters", "Trainable parameters", "Loss", "F1", "Matthews", "Pearson"]  # fmt: skip
    assert {"method", "max_train", "Deviation over seeds (%)"} <= set(titles)
    assert [cell.value for cell in column(sheet, "Study")] == [each.study.name for each in facts.results]
    first = facts.results[0]
    assert first.score is not None
    score, share = column(sheet, "Best score (%)")[0], column(sheet, "Trainable share (%)")[0]
    assert (score.value, score.number_format) == (pytest.approx(100 * first.score), "0.00")
    assert (share.value, share.number_format) == (pytest.approx(100 * 147_456 / 22_713_216), "0.000")
    total, memory = column(sheet, "Total parameters")[0], column(sheet, "Peak memory (GB)")[0]
    assert (total.value, total.number_format, memory.value) == (22_713_216, "#,##0", 1.4)
    assert column(sheet, "Matthews")[0].value == pytest.approx(first.score)
    assert column(sheet, "Pearson")[0].value is None, "the task has none"
    assert column(sheet, "max_train")[0].value == 2000
    time = column(sheet, "Time of all trials")[0]
    assert time.number_format == "[h]:mm:ss"
    assert time.value.total_seconds() == pytest.approx(first.seconds, abs=1)
    failed = column(sheet, "Best score (%)")[-1]
    assert failed.value is None
    assert column(sheet, "Status")[-1].value == "failed"


def test_the_summary_counts_and_has_means_and_maxima(book: Any, facts: Facts) -> None:
    rows = {row[0].value: [cell.value for cell in row[1:]] for row in book["Summary"].iter_rows(min_row=2)}
    assert (rows["Tasks done"][0], rows["Tasks"][0]) == (0, 1), "one of its studies has failed"
    assert (rows["Studies done"][0], rows["Studies"][0]) == (5, 6)
    scores = [100 * result.score for result in facts.results if result.score is not None]
    _, mean, most, least, of = rows["Best score (%)"]
    assert (mean, most, least, of) == (*map(pytest.approx, (sum(scores) / 5, max(scores), min(scores))), 5)
    assert rows["Peak memory (GB)"][2] == 1.4


def test_trials_are_all_there_best_first(book: Any, facts: Facts) -> None:
    sheet = book["Trials"]
    assert sheet.max_row == 1 + sum(len(result.study.trials) for result in facts.results)
    scores = [cell.value for cell in column(sheet, "Score (%)")[:11]]
    assert scores == sorted(scores, reverse=True)
    assert {cell.value for cell in column(sheet, "tuner.rank")[:11]} <= {4, 8, 16}
    assert column(sheet, "Error")[-1].value.startswith("diverged at step 3")


def test_no_text_is_a_formula_and_no_number_is_beyond_excel() -> None:
    bad = trial(
        1, "failed", error="=HYPERLINK(1)\x00\x1b[31m red", metrics={"loss": float("nan")}, objective=float("-inf")
    )
    named = study("情感", (trial(0, "finished", 0.5, config={"tuner.rank": None, "tuner.bias": True}), bad), best=0)
    book = opened(workbook(Facts(state(named, status="finished")), ()))
    errors, ranks = column(book["Trials"], "Error"), column(book["Trials"], "tuner.rank")
    assert (errors[1].value, errors[1].data_type) == ("=HYPERLINK(1)[31m red", "s")
    assert ranks[0].value == "null"
    assert column(book["Trials"], "tuner.bias")[0].value == "true"
    assert column(book["Trials"], "Score (%)")[1].value == "-inf"
    assert column(book["Results"], "Task")[0].value == "情感"
