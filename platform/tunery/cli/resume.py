"""`platform resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from tunery.cli import extras
from tunery.cli._place import found, here
from tunery.cli.options import FreshOption, FromOption, OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit, note

PANEL = Panel.RUNS
ORDER = 60


def command(
    run: RunArgument,
    profile: ProfileOption = None,
    fresh: FreshOption = False,
    from_: FromOption = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Let it go on and return at once.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let a run go on that was stopped, interrupted or has failed.

    Finished trials stay; the others go on from their newest good checkpoint, under the profile the run was started
    with. --from sets one of its own trials back to an earlier checkpoint; the newer ones are kept, set aside. --fresh
    starts the run's spec over in a new run, in which --from names what all trials begin with.
    Exit codes as those of `platform submit`.
    """
    from tunery.cli._watch import conclude, watch
    from tunery.report import result

    place, client = here(profile)
    run = client.find(run)
    if place.target == "local":
        extras.require("cluster")
    begin = found(client, from_, of=run) if from_ else None
    handle = client.resume(run, fresh=fresh, begin=begin)
    if begin is not None and not fresh:
        note(f"trial {begin.study}/{begin.trial} goes on from step {begin.checkpoint.step}; its newer checkpoints are "
             f"set aside in {begin.checkpoint.where.rpartition('/')[0]}")  # fmt: skip
    if handle.outcome == "finished":
        note(f"run {run} has finished: there is nothing to go on with; --fresh starts it over")
        conclude(client, client.state(run), output, profile=profile)
    if handle.outcome == "started":
        note(f"run {handle.run_id} starts{f' with the weights of {begin.name}' if begin else ''}; {run} stays as it is")
        run = handle.run_id
    else:
        note(f"run {run} {'is under way already: showing it' if handle.outcome == 'attached' else 'goes on'}")
    if not detach:
        watch(client, run, output, profile=profile)
    state = client.state(run)
    emit(output, result.document(state), next_steps=result.next_steps(state, profile=profile))
