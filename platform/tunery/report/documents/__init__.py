"""A run as files to keep and to hand on: a workbook, tables, Markdown, a page, pictures, and answers in words.

curves.py       what each evaluation gave and when, from the run's own record
facts.py        the run as the documents see it: a result a study, the axes of the matrix
answers.py      which is better, by how much, is it more than chance, what it cost
workbook.py     the Excel workbook
tables.py       results_summary.csv and all_results.json
sections.py     what Markdown and page say;  markdown.py, page.py  how
pictures.py     the pictures;  comparisons.py, parallel.py  two kinds of them;  canvas.py, fonts.py, importance.py

Everything but `curves.read` and `write` is a pure function. Loads matplotlib, openpyxl and Optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storage.files import write_whole
from tunery.plan import Plan
from tunery.report.documents import curves, pictures, sections, tables
from tunery.report.documents.answers import Answer, answers
from tunery.report.documents.facts import collect
from tunery.report.documents.markdown import markdown
from tunery.report.documents.page import page
from tunery.report.documents.workbook import workbook
from tunery.runs import RunFolder, RunState


@dataclass(frozen=True)
class Report:
    """All of a run's documents."""

    files: Mapping[str, bytes]
    """Name -> content."""
    answers: tuple[Answer, ...]
    left_out: Mapping[str, str]
    """Name of a picture -> why it is not there."""
    warnings: tuple[str, ...]
    studies: frozenset[str]
    """Those that have begun: they have a run in the tracker, which may keep the files."""


def make(state: RunState, plan: Plan | None, recorded: curves.Curves) -> Report:
    """The documents of a run, under way or ended. NotFoundError where no trial has a result.

    Without a plan, which another version may have written so that it cannot be read, there is no importance.
    """
    facts = collect(state, plan, recorded)
    told = answers(facts)
    drawn = pictures.draw(facts)
    title, parts = sections.title(facts), sections.sections(facts, told, drawn)
    files = {
        f"results_{facts.as_of:%Y%m%d_%H%M%S}.xlsx": workbook(facts, told),
        "results_summary.csv": tables.summary_csv(facts),
        "all_results.json": tables.all_results(facts, told, drawn.left_out),
        "report.md": markdown(title, parts),
        "report.html": page(title, parts, drawn.files),
        **drawn.files,
    }
    return Report(files, told, drawn.left_out, drawn.warnings, recorded.studies)


def of_run(folder: RunFolder, state: RunState, plan: Plan | None) -> Report:
    """The same, with what lies in the run's folder."""
    return make(state, plan, curves.read(folder))


def write(report: Report, folder: Path) -> list[Path]:
    """The files, each whole or not there; a file of the same name is replaced."""
    written = []
    for name, content in report.files.items():
        write_whole(folder / name, content)
        written.append(folder / name)
    return written


__all__ = ["Answer", "Report", "make", "of_run", "write"]
