"""The workbook: results (a row a study), their summary, every trial, and the answers. Every header stays in sight."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, Cell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from tunery.report.documents.answers import NOTES, Answer
from tunery.report.documents.facts import Facts, Result, is_number, said
from tunery.report.trials import ranked
from tunery.runs import StudyState, TrialState, Value

PERCENT, SHARE, GIGABYTES, COUNT, NUMBER, WHOLE = "0.00", "0.000", "0.00", "#,##0", "0.0000", "0"
DURATION = "[h]:mm:ss"
GENERAL = "General"
_DAY = 86_400.0
_SUMMARISED = ("Best score (%)", "Trainable share (%)", "Peak memory (GB)", "Total parameters", "Trainable parameters",
               "Loss", "F1", "Matthews", "Pearson", "Time of the best trial", "Time of all trials")  # fmt: skip
_HEADER = PatternFill("solid", fgColor="1F3864")
_WIDEST = 60
_LONGEST = 32_000
"""Characters of a cell, of the 32,767 that there may be."""

Content = str | float | int | datetime | None


@dataclass(frozen=True)
class Column:
    """One column of results."""

    title: str
    format: str
    of: Callable[[Result], Content]


def workbook(facts: Facts, answers: Sequence[Answer]) -> bytes:
    """As an .xlsx file."""
    book = Workbook()
    first = book.active
    assert isinstance(first, Worksheet)
    columns = result_columns(facts)
    first.title = "Results"
    rows = [[(column.of(result), column.format) for column in columns] for result in facts.results]
    _fill(first, [column.title for column in columns], rows, frozen="C2")
    _summary(book.create_sheet("Summary"), facts, columns)
    _trials(book.create_sheet("Trials"), facts)
    told = [[(answer.question, GENERAL), (line, GENERAL)] for answer in answers for line in answer.lines]
    told += [[("How to read this", GENERAL), (note, GENERAL)] for note in NOTES]
    sheet = book.create_sheet("Answers")
    _fill(sheet, ["Question", "Answer"], told, frozen="A2")
    sheet.column_dimensions["B"].width = 120
    for row in sheet.iter_rows(min_row=2):
        for cell in row:
            cell.alignment = Alignment(wrap_text=True, vertical="top")
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def result_columns(facts: Facts) -> list[Column]:
    """The columns of the results, those that people compare first."""
    shown = {"mcc", "f1", "pearson"}
    others = [name for study in facts.state.studies for name in study.metrics if name not in shown]
    return [
        Column("Task", GENERAL, lambda r: r.study.task),
        Column("Study", GENERAL, lambda r: r.study.name),
        Column("Best score (%)", PERCENT, lambda r: _percent(r.score)),
        Column("Trainable share (%)", SHARE, lambda r: _percent(r.trainable_share)),
        Column("Peak memory (GB)", GIGABYTES, lambda r: r.peak_gb),
        Column("Total parameters", COUNT, lambda r: r.measured("total_parameters")),
        Column("Trainable parameters", COUNT, lambda r: r.measured("trainable_parameters")),
        Column("Loss", NUMBER, lambda r: r.measured("loss")),
        Column("F1", NUMBER, lambda r: r.metric("f1")),
        Column("Matthews", NUMBER, lambda r: r.metric("mcc")),
        Column("Pearson", NUMBER, lambda r: r.metric("pearson")),
        *(Column(name, NUMBER, _metric_value(name)) for name in dict.fromkeys(others)),
        *(Column(facts.names[path], GENERAL, _cell_value(path)) for path in facts.axes),
        Column("Score is", GENERAL, lambda r: r.study.objective),
        Column("Mean over other seeds (%)", PERCENT, lambda r: _percent(r.standing.mean) if r.standing else None),
        Column("Deviation over seeds (%)", PERCENT, lambda r: _percent(r.standing.deviation) if r.standing else None),
        Column("Other seeds", WHOLE, lambda r: len(r.standing.runs) if r.standing else None),
        Column("Best trial", WHOLE, lambda r: r.best.number if r.best else None),
        Column("Trials", WHOLE, lambda r: len(r.study.trials)),
        Column("Pruned", WHOLE, lambda r: r.count("pruned")),
        Column("Failed", WHOLE, lambda r: r.count("failed")),
        Column("Time of the best trial", DURATION, lambda r: r.best_seconds / _DAY),
        Column("Time of all trials", DURATION, lambda r: r.seconds / _DAY),
        Column("Examples a second", PERCENT, lambda r: r.measured("examples_per_s")),
        Column("Evaluated a second", PERCENT, lambda r: r.measured("evaluated_per_s")),
        Column("Status", GENERAL, lambda r: r.study.status),
        Column("Model", GENERAL, lambda r: f"{r.study.model}/{r.study.model_version}" if r.study.model else None),
        Column("Champion", GENERAL, lambda r: {True: "yes", False: "no", None: None}[r.study.champion]),
        Column("Error", GENERAL, lambda r: r.study.error),
    ]


def _metric_value(name: str) -> Callable[[Result], Content]:
    return lambda result: result.measured(name)


def _cell_value(path: str) -> Callable[[Result], Content]:
    return lambda result: _plain(result.study.cell[path]) if path in result.study.cell else None


def _summary(sheet: Worksheet, facts: Facts, columns: Sequence[Column]) -> None:
    """Tasks done, means and maxima."""
    done = [result for result in facts.results if result.study.status == "finished"]
    tasks = {task: all(r.study.status == "finished" for r in results) for task, results in facts.tasks.items()}
    state = facts.state
    moment = "yyyy-mm-dd hh:mm:ss"
    counts: list[tuple[str, Content, str]] = [
        ("Tasks done", sum(tasks.values()), WHOLE),
        ("Tasks", len(tasks), WHOLE),
        ("Studies done", len(done), WHOLE),
        ("Studies", len(facts.results), WHOLE),
        ("Trials", sum(len(result.study.trials) for result in facts.results), WHOLE),
        ("Time of all trials", sum(result.seconds for result in facts.results) / _DAY, DURATION),
        ("Run", state.run_id, GENERAL),
        ("Status", state.status, GENERAL),
        ("Started (UTC)", datetime.fromtimestamp(state.started_at, UTC).replace(tzinfo=None), moment),
        ("As of (UTC)", facts.as_of.replace(tzinfo=None), moment),
    ]
    rows: list[list[tuple[Content, str]]] = [[(title, GENERAL), (value, form)] for title, value, form in counts]
    for column in columns:
        found = [column.of(result) for result in facts.results] if column.title in _SUMMARISED else []
        values = [value for value in found if isinstance(value, int | float) and math.isfinite(value)]
        if values:
            numbers = [(value, column.format) for value in (statistics.fmean(values), max(values), min(values))]
            rows.append([(column.title, GENERAL), (None, GENERAL), *numbers, (len(values), WHOLE)])
    _fill(sheet, ["", "Value", "Mean", "Maximum", "Minimum", "Of studies"], rows, frozen="B2")


def _trials(sheet: Worksheet, facts: Facts) -> None:
    """Every trial, best first in its study."""
    studies = facts.state.studies
    metrics = list(dict.fromkeys([*(name for s in studies for name in s.metrics), "loss", "train_loss"]))
    drawn = list(dict.fromkeys(path for s in studies for trial in s.trials for path in trial.config))
    axes = list(facts.axes)
    header = ["Task", "Study", "Trial", "Status", "Score (%)", *metrics, *drawn, *axes, "Values from", "Rerun of",
              "Epoch", "Epochs", "Step", "Steps", "Time", "Examples a second", "Evaluated a second",
              "Error"]  # fmt: skip

    def row(study: StudyState, trial: TrialState) -> list[tuple[Content, str]]:
        return [
            (study.task, GENERAL),
            (study.name, GENERAL),
            (trial.number, WHOLE),
            (trial.status, GENERAL),
            (_percent(trial.objective), PERCENT),
            *((trial.metrics.get(name), NUMBER) for name in metrics),
            *((_plain(trial.config[path]) if path in trial.config else None, GENERAL) for path in drawn),
            *((_plain(study.cell[path]) if path in study.cell else None, GENERAL) for path in axes),
            (trial.origin or "sampler", GENERAL),
            (trial.rerun_of, WHOLE),
            (trial.epoch, PERCENT),
            (trial.epochs, WHOLE),
            (trial.step, COUNT),
            (trial.steps, COUNT),
            (facts.seconds(study.name, trial) / _DAY, DURATION),
            (trial.metrics.get("examples_per_s"), PERCENT),
            (trial.metrics.get("evaluated_per_s"), PERCENT),
            (trial.error, GENERAL),
        ]

    _fill(sheet, header, [row(study, trial) for study in studies for trial in ranked(study)], frozen="D2")


def _fill(
    sheet: Worksheet, header: Sequence[str], rows: Sequence[Sequence[tuple[Content, str]]], *, frozen: str
) -> None:
    for place, title in enumerate(header, start=1):
        cell = sheet.cell(1, place, title)
        cell.font, cell.fill = Font(bold=True, color="FFFFFF"), _HEADER
        cell.alignment = Alignment(wrap_text=True, vertical="center")
    for line, row in enumerate(rows, start=2):
        for place, (content, form) in enumerate(row, start=1):
            _set(sheet.cell(line, place), content, form)
    sheet.freeze_panes = frozen
    if rows:
        sheet.auto_filter.ref = f"A1:{get_column_letter(len(header))}{len(rows) + 1}"
    for place, title in enumerate(header, start=1):
        texts = [_shown(row[place - 1][0]) for row in rows if len(row) >= place]
        longest = max([len(title) * 0.7 + 4, *(_width(text) + 2 for text in texts)])
        sheet.column_dimensions[get_column_letter(place)].width = min(_WIDEST, max(9.0, longest))


def _set(cell: Cell | object, content: Content, form: str) -> None:
    assert isinstance(cell, Cell)
    if isinstance(content, float) and not math.isfinite(content):
        content = str(content)  # a number that the format has no way to write
    if isinstance(content, str):
        cell.value = ILLEGAL_CHARACTERS_RE.sub("", content)[:_LONGEST] or None
        if cell.value is not None:
            cell.data_type = "s"  # a text that begins with '=' is no formula
        return
    cell.value = content
    cell.number_format = form


def _shown(content: Content) -> str:
    return f"{content:,.4f}" if isinstance(content, float) else str(content or "")


def _width(text: str) -> float:
    """In columns of a spreadsheet: a Chinese character takes two."""
    return sum(2.0 if ord(letter) > 0x2E80 else 1.0 for letter in text.partition("\n")[0])


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _plain(value: Value) -> Content:
    """A setting: a number as one, a flag and a null as a spec writes them."""
    return value if is_number(value) else said(value)
