"""`platform report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from tunery.cli import extras
from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit, note, only_stderr
from tunery.errors import ConflictError, InputError

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.plan import Plan

PANEL = Panel.RUNS
ORDER = 80


def command(
    run: RunArgument,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="Where to write; made if need be.",
            show_default="the run's folder",
        ),
    ] = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a run's report: a workbook, CSV, JSON, Markdown, a page, pictures, and answers in words.

    Which value of the matrix is better, by how much, whether that is more than chance, and what it cost. A run that
    has ended has its report already, in its folder and among MLflow's artifacts; of one under way this is what is
    there so far. Of a run on a cluster it is made here, below TUNERY_HOME/cache/runs, from what MLflow was told.
    """
    extras.require("cluster")
    _, client = here(profile)
    state = client.state(client.find(run))
    folder = client.folder(state.run_id)
    target = to or folder.report
    with only_stderr():
        from tunery.report import documents

        report = documents.of_run(folder, state, _plan(client, state.run_id))
    try:
        written = documents.write(report, target)
    except OSError as error:
        raise InputError(f"cannot write to {target}: {error.strerror or error}; --to names another folder") from error
    for warning in report.warnings:
        note(warning)
    document = {
        "run_id": state.run_id,
        "folder": str(target.resolve()),
        "files": [file.name for file in written],
        "answers": [{"task": a.task, "question": a.question, "lines": list(a.lines)} for a in report.answers],
        "left_out": dict(report.left_out),
        "warnings": list(report.warnings),
    }
    parts: list[Text | Padding] = []
    for answer in report.answers:
        parts.append(Text(answer.question, "bold"))
        parts += [Padding(Text(line), (0, 0, 0, 2), expand=False) for line in answer.lines]
        parts.append(Text())
    parts += [Text(f"not drawn: {name}: {why}", "dim") for name, why in report.left_out.items()]
    parts.append(Text(f"written to {target}: {', '.join(file.name for file in written)}"))
    emit(output, document, *parts, next_steps=[f"platform compare {state.run_id}", "platform ui"])


def _plan(client: Client, run: str) -> Plan | None:
    try:
        return client.plan(run)
    except ConflictError as error:  # planned by another version: all but the importance can be told
        note(str(error))
        return None
