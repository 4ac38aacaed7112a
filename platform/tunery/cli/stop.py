"""`platform stop`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit, note

PANEL = Panel.RUNS
ORDER = 50


def command(
    run: RunArgument,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="After which its processes are ended.")
    ] = 120.0,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Stop a run: its trials keep their last checkpoint, and `platform resume` lets it go on."""
    from tunery.report import result

    _, client = here(profile)
    run = client.find(run)
    before = client.state(run).status
    if before in ("starting", "running"):
        note(f"asking {run} to stop; it has {grace:.0f} s to keep its checkpoints")
    state = client.stop(run, grace_s=grace)
    line = f"run {run} {'had ' if before == state.status else ''}{_PAST[state.status]}"
    emit(output, result.document(state), Text(line), next_steps=result.next_steps(state, profile=profile))


_PAST = {"finished": "finished", "failed": "failed", "stopped": "stopped"}
