"""`platform logs`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit
from tunery.errors import InputError

PANEL = Panel.RUNS
ORDER = 40


def command(
    run: RunArgument,
    trial: Annotated[int | None, typer.Option("--trial", min=0, metavar="N", help="This trial's log.")] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="The trial's study, where the run has several.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Print the log of a run's driver, or of one trial.

    With -o json: {run_id, study, trial, lines}.
    """
    if study is not None and trial is None:
        raise InputError("--study goes with --trial: a study has no log of its own")
    if follow and output is Format.JSON:
        raise InputError("-f and -o json do not go together: a document has an end")
    _, client = here(profile)
    run = client.find(run)
    lines = client.log(run, study=study, trial=trial, follow=follow)
    if output is Format.JSON:
        emit(output, {"run_id": run, "study": study, "trial": trial, "lines": list(lines)})
        return
    try:
        for line in lines:
            # As it stands: what a program has logged is no markup of ours.
            print(line, flush=follow)
        sys.stdout.flush()
    except BrokenPipeError:
        # `platform logs RUN | head` has seen enough; the interpreter must not fail on the pipe at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
