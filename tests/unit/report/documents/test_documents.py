"""The files for programs and for people: CSV, JSON, Markdown, the page."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.unit.report.states import state, study, trial
from tunery.report.documents import Report, make, write
from tunery.report.documents.curves import Curves
from tunery.report.documents.facts import Facts


def test_the_csv_has_a_row_a_study(report: Report, facts: Facts) -> None:
    rows = list(csv.DictReader(io.StringIO(report.files["results_summary.csv"].decode())))
    assert [row["study"] for row in rows] == [result.study.name for result in facts.results]
    first, failed = rows[0], rows[-1]
    assert (first["tuner.method"], first["data.max_train"], first["trials"]) == ("lora", "2000", "11")
    assert float(first["best_score"]) == facts.results[0].score
    standing = facts.results[0].standing
    assert standing is not None
    assert (float(first["mean_over_seeds"]), first["seeds"]) == (standing.mean, "3")
    assert float(first["mcc"]) == facts.results[0].score
    assert (failed["status"], failed["best_score"], failed["failed"]) == ("failed", "", "1")


def test_the_json_has_every_metric_of_every_evaluation(report: Report, facts: Facts) -> None:
    document = json.loads(report.files["all_results.json"])
    first = document["studies"][0]
    assert first["summary"]["best_score"] == facts.results[0].score
    best = first["trials"][0]
    assert best["trial"] == facts.results[0].study.best
    assert [point["epoch"] for point in best["evaluations"]] == [1, 2, 3, 4]
    assert {"step", "at", "cost_s", "loss", "train_loss", "objective"} <= set(best["evaluations"][0])
    assert document["answers"][0]["lines"]
    assert document["studies"][-1]["error"] == "every trial failed: nan"


def test_no_number_breaks_the_json() -> None:
    one = study("cola", (trial(0, "finished", 0.5, metrics={"loss": float("nan")}),), best=0)
    report = make(state(one, status="finished"), None, Curves())
    (found,) = json.loads(report.files["all_results.json"], parse_constant=pytest.fail)["studies"]
    assert found["trials"][0]["metrics"] == {"loss": None}


def test_the_markdown_has_results_answers_and_pictures(report: Report) -> None:
    text = report.files["report.md"].decode()
    assert text.startswith("# scale: 6 studies, ")
    assert "| task | method | max\\_train |" in text
    named = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert set(named) == {name for name in report.files if name.endswith(".png")}
    for answer in report.answers:
        assert f"## {answer.question}".replace("_", "\\_") in text


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_it_needs(report: Report) -> None:
    page = Page()
    page.feed(report.files["report.html"].decode())
    assert page.open == []
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & page.tags
    assert "prefers-color-scheme: dark" in page.text
    for answer in report.answers:
        assert all(line in page.text for line in answer.lines)


def test_names_and_errors_are_text_wherever_they_stand() -> None:
    bad = trial(1, "failed", error="<script>alert(1)</script> | a | b")
    one = study("cola", (trial(0, "finished", 0.5), bad), best=0, notes=("负面 & <b>",))
    report = make(state(one, status="finished"), None, Curves())
    page, text = report.files["report.html"].decode(), report.files["report.md"].decode()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | a | b" in page
    assert "cola: 负面 &amp; &lt;b&gt;" in page
    assert "\\<script\\>alert(1)\\</script\\> \\| a \\| b" in text


def test_files_are_written_whole_and_replaced(tmp_path: Path) -> None:
    report = Report({"a.txt": b"new", "b.txt": b"b"}, (), {}, (), frozenset())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old and longer")
    assert write(report, tmp_path / "out") == [tmp_path / "out" / "a.txt", tmp_path / "out" / "b.txt"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt"]
    assert (tmp_path / "out" / "a.txt").read_bytes() == b"new"
