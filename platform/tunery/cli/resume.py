"""`platform resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from tunery.cli import extras
from tunery.cli._place import here
from tunery.cli.options import OutputOption, RunArgument
from tunery.cli.output import Format, Panel, emit, note

PANEL = Panel.RUNS
ORDER = 60


def command(
    run: RunArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Let it go on and return at once.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let a run go on that was stopped, interrupted or has failed.

    Finished trials stay; the others go on from their last checkpoint, under the profile the run was started with.
    Exit codes as those of `platform submit`.
    """
    from tunery.cli._watch import conclude, watch
    from tunery.report import result

    place, client = here()
    run = client.find(run)
    if place.target == "local":
        extras.require("cluster")
    handle = client.resume(run)
    if handle.outcome == "finished":
        note(f"run {run} has finished: there is nothing to go on with")
        conclude(client, client.state(run), output)
    note(f"run {run} {'is under way already: showing it' if handle.outcome == 'attached' else 'goes on'}")
    if not detach:
        watch(client, run, output)
    state = client.state(run)
    emit(output, result.document(state), next_steps=result.next_steps(state))
