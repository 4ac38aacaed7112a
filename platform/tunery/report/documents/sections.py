"""What the Markdown and the page say, once: sections of text, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunery.report import words
from tunery.report.documents.answers import NOTES, Answer
from tunery.report.documents.facts import Facts, Result
from tunery.report.documents.pictures import Pictures
from tunery.report.trials import ranked
from tunery.runs import StudyState, TrialState


@dataclass(frozen=True)
class Table:
    """Texts, under the titles of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[str]
    """Columns that are not numbers."""


@dataclass(frozen=True)
class Section:
    """A title, and what stands below it, in this order."""

    title: str
    lines: tuple[str, ...] = ()
    """Each a paragraph, or an item where there are several."""
    table: Table | None = None
    picture: str = ""
    """Name of the file."""
    folded: bool = False
    """Too long to be shown unasked."""


def title(facts: Facts) -> str:
    return f"{facts.state.name}: {words.count(len(facts.results), 'study')}, {words.planned(facts.state)} trials"


def sections(facts: Facts, answers: Sequence[Answer], pictures: Pictures) -> list[Section]:
    """All of them."""
    state = facts.state
    as_of = facts.as_of.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    took = f" after {words.duration(state.seconds(facts.as_of.timestamp()))}" if state.started_at else ""
    head = [f"Run {state.run_id}: {state.status}{took}, as of {as_of} UTC."]
    head += [state.error] if state.error else []
    found = [Section("Results", tuple(head), _results(facts))]
    found += [Section(answer.question, answer.lines) for answer in answers]
    found += [Section("How to read this", NOTES)]
    found += [Section(_heading(name), (caption,), picture=name) for name, caption in pictures.captions.items()]
    remarks = [f"{name}: {why}." for name, why in pictures.left_out.items()] + list(pictures.warnings)
    found += [Section("Not drawn", tuple(remarks))] if remarks else []
    notes = [f"{study.name}: {note}" for study in state.studies for note in study.notes]
    found += [Section("The data", tuple(notes))] if notes else []
    found += [Section(f"Trials of {study.name}", (), _trials(facts, study), folded=True) for study in state.studies]
    return found


def _heading(picture: str) -> str:
    return picture.removesuffix(".png").replace("_", " ").capitalize()


def _results(facts: Facts) -> Table:
    axes = facts.names
    others = list(dict.fromkeys(name for study in facts.state.studies for name in study.metrics))
    columns = ("task", *axes.values(), "best score (%)", "over seeds (%)", "score is", "trial", "trainable (%)",
               "peak memory (GB)", "time", "all trials", "loss", *others, "status")  # fmt: skip

    def row(result: Result) -> tuple[str, ...]:
        cell = result.study.cell
        return (
            result.study.task,
            *(facts.said(path, cell[path]) if path in cell else "" for path in axes),
            _percent(result.score),
            _over_seeds(result),
            result.study.objective,
            str(result.best.number) if result.best else "",
            _percent(result.trainable_share, digits=3),
            f"{result.peak_gb:.2f}" if result.peak_gb is not None else "",
            words.duration(result.best_seconds) if result.best else "",
            words.duration(result.seconds),
            _number(result.measured("loss")),
            *(_number(result.measured(name)) for name in others),
            result.study.status,
        )

    texts = frozenset({"task", "score is", "status", *axes.values()})
    return Table(columns, tuple(row(result) for result in facts.results), texts)


def _trials(facts: Facts, study: StudyState) -> Table:
    paths = tuple(dict.fromkeys(path for trial in study.trials for path in trial.config))
    short = words.short_names(paths)
    columns = (
        "trial",
        "status",
        "score (%)",
        *short.values(),
        *study.metrics,
        "loss",
        "epoch",
        "time",
        "from",
        "error",
    )

    def row(trial: TrialState) -> tuple[str, ...]:
        again = f"trial {trial.rerun_of}, another seed" if trial.rerun_of is not None else ""
        return (
            str(trial.number),
            trial.status,
            _percent(trial.objective),
            *(words.setting(trial.config[path]) if path in trial.config else "" for path in paths),
            *(_number(trial.metrics.get(name)) for name in study.metrics),
            _number(trial.metrics.get("loss")),
            words.epoch(trial),
            words.duration(facts.seconds(study.name, trial)),
            again or trial.origin or "sampler",
            words.first_line(trial.error),
        )

    return Table(columns, tuple(row(trial) for trial in ranked(study)), frozenset({"status", "from", "error"}))


def _over_seeds(result: Result) -> str:
    found = result.standing
    if found is None or found.mean is None:
        return ""
    spread = f" ± {100 * found.deviation:.2f}" if found.deviation is not None else ""
    return f"{100 * found.mean:.2f}{spread} ({len(found.runs)})"


def _percent(value: float | None, *, digits: int = 2) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None) -> str:
    return "" if value is None else words.number(value)
