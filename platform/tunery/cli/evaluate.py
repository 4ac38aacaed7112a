"""`platform evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli._models import BatchOption, DeviceOption, ModelArgument, quiet_libraries
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, only_stderr, table
from tunery.errors import NotFoundError

PANEL = Panel.MODELS
ORDER = 20


def command(
    model: ModelArgument,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", show_default="the one it was trained for", help="The task.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="ROOT",
            show_default="generated, or from the hub",
            help="A folder with a folder a task, holding parquet, CSV, TSV or JSON Lines.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most rows a split, drawn with seed 0.")] = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Measure a model on a task's evaluation data, by the task's own metrics.

    With -o json: {model, task, objective: {name, value}, metrics, examples, seconds, data_fingerprint, recorded: the
    objective's value in training, same_data: whether that was measured on these rows}.
    """
    extras.require("cluster")
    quiet_libraries()
    with only_stderr():
        from tunery import tasks
        from tunery.inference.evaluate import evaluate
        from tunery.inference.model import open_source
        from tunery.inference.source import locate
        from tunery.rows import Place, evaluation_sets, skipped

        source = locate(model, profile=profile)
        for line in source.notes:
            note(line)
        chosen = source.card.definition if task is None or task == source.card.task else tasks.get(task)
        if chosen is None:
            raise NotFoundError(
                f"{source.name} was trained for {source.card.task}, which is not known here: name a --task"
            )
        sets = evaluation_sets(chosen, Place.at(data, chosen), limit=limit)
        for line in skipped(sets):
            note(line)
        note(f"measuring {source.name} on {sum(len(rows.rows) for rows in sets.values())} rows of {chosen.name}")
        outcome = evaluate(open_source(source, device), chosen, sets, batch_size=batch_size)
    recorded = source.card.score
    same = recorded.comparable(outcome.score)
    shown = table("metric", "value", numbers=("value",), title=f"{source.name} on {chosen.name}")
    for name, value in outcome.metrics.items():
        shown.add_row(name, f"{value:.4f}")
    rate = outcome.examples / max(outcome.seconds, 1e-9)
    said = "on the same rows" if same else "on other rows" if recorded.data_fingerprint else "on rows not noted"
    line = f"{outcome.examples} rows, {rate:.0f}/s; in training {recorded.objective} {recorded.value:.4f} {said}"
    document = {
        "model": source.name,
        "task": chosen.name,
        "objective": {"name": outcome.objective_name, "value": outcome.objective},
        "metrics": dict(outcome.metrics),
        "examples": outcome.examples,
        "seconds": outcome.seconds,
        "data_fingerprint": outcome.data_fingerprint,
        "recorded": recorded.value,
        "same_data": same,
    }
    emit(output, document, shown, Text(line))
