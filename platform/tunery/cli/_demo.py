"""`platform predict --demo`: the task's own examples, what was meant and what the model says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tunery.cli.output import Format, count_of, emit, note, table
from tunery.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from tunery.inference.card import AdapterCard
    from tunery.inference.generator import Answer
    from tunery.inference.model import Model
    from tunery.inference.predictor import Prediction
    from tunery.tasks import Example, Task

ROWS = 6
"""Of a task's data, where there is no example of its own."""


def examples_of(card: AdapterCard, name: str, data: Path | None) -> tuple[Example, ...]:
    """The examples of a model's task: with `data`, the first rows there. What is missing is told with what to do."""
    task = card.definition
    if task is None:
        raise NotFoundError(f"{name} was trained for {card.task}, which is not known here: ask it with --text")
    if data is None and task.examples:
        return task.examples
    if data is None and task.hub is None:
        raise InputError(
            f"{task.name} has no examples of its own: name the folder that holds {task.folder}/ with --data, "
            f"for its first rows"
        )
    return _first_rows(task, data)


def demo(model: Model, examples: Sequence[Example], output: Format) -> None:
    """With -o json: {model, task, examples, agreed}."""
    said: list[Prediction | Answer] = list(
        model.predict_many([(example.text, example.text_pair) for example in examples])
    )
    entries = [_entry(example, each) for example, each in zip(examples, said, strict=True)]
    agreed = None
    if model.card.kind == "classification":
        agreed = sum(example.meant == each.told()["label"] for example, each in zip(examples, said, strict=True))
    document = {"model": model.name, "task": model.card.task, "examples": entries, "agreed": agreed}
    if model.card.kind == "generation":
        emit(output, document, *_answers(entries))
        return
    last = [] if agreed is None else [Text(f"{agreed} of {count_of(len(examples), 'example')} as meant")]
    emit(output, document, _table(model, entries), *last)


def _entry(example: Example, said: Prediction | Answer) -> dict[str, Any]:
    second = {} if example.text_pair is None else {"text2": example.text_pair}
    return {"text": example.text, **second, "meant": example.meant, **said.told()}


def _table(model: Model, entries: Sequence[dict[str, Any]]) -> Table:
    texts = ("text", "text2") if any("text2" in entry for entry in entries) else ("text",)
    title = f"{model.name} on {model.card.task}"
    if model.card.kind == "regression":
        shown = table(*texts, "meant", "said", numbers=("meant", "said"), title=title)
        for entry in entries:
            shown.add_row(*(entry[name] for name in texts), f"{entry['meant']:g}", f"{entry['score']:.4f}")
        return shown
    shown = table(*texts, "meant", "said", "probability", numbers=("probability",), title=title)
    for entry in entries:
        said = Text(entry["label"], "green" if entry["label"] == entry["meant"] else "red")
        shown.add_row(*(entry[name] for name in texts), entry["meant"], said, f"{entry['score']:.4f}")
    return shown


def _answers(entries: Sequence[dict[str, Any]]) -> list[Text]:
    lines = []
    for entry in entries:
        lines += [
            Text(entry["text"], "bold"),
            Text.assemble(("  meant  ", "dim"), entry["meant"]),
            Text.assemble(("  said   ", "dim"), entry["answer"]),
        ]
    return lines


def _first_rows(task: Task, data: Path | None) -> tuple[Example, ...]:
    from tunery.rows import Place, evaluation_sets, skipped
    from tunery.tasks import Example

    sets = evaluation_sets(task, Place.at(data, task))
    for line in skipped(sets):
        note(line)
    rows = next(iter(sets.values())).rows[:ROWS]
    return tuple(
        Example(
            row.text,
            row.text_pair,
            row.answer if row.answer is not None else task.labels[int(row.label)] if task.labels else row.label,
        )
        for row in rows
    )
