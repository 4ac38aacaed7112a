"""`platform ls`."""

from __future__ import annotations

import time

from rich.text import Text

from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit

PANEL = Panel.RUNS
ORDER = 20


def command(profile: ProfileOption = None, output: OutputOption = Format.TABLE) -> None:
    """List the runs, newest first."""
    from tunery.report import trials

    _, client = here(profile)
    states = client.runs()
    if states:
        emit(output, trials.runs_document(states), trials.runs_table(states, now=time.time()))
    else:
        emit(output, trials.runs_document(()), Text("no runs yet"), next_steps=["platform submit SPEC"])
