"""Watching a run to its end: what `submit` and `resume` do after a run was started or found."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tunery.cli.output import INTERRUPTED, Format, emit, note, stderr
from tunery.errors import ConflictError, NotFoundError
from tunery.report import live, result

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.runs import RunState

LOG_LINES = 20
"""Of the driver's log, shown when it has died."""


def watch(client: Client, run: str, output: Format, *, profile: str | None = None) -> NoReturn:
    """Show the run until it has ended or the user lets it go, print what came of it, and exit with its code.

    `profile`: the one that was named, for the hints.
    """
    console = stderr()
    while True:
        try:
            state = _until_the_end(client, run, console)
            break
        except KeyboardInterrupt:
            match _wish(console):
                case "stop":
                    state = _stop(client, run, output, profile)
                    break
                case "detach":
                    _detached(client, run, output, profile)
                case "go on":
                    continue
    conclude(client, state, output, profile=profile, head=not (console.is_terminal and sys.stdout.isatty()))


def conclude(
    client: Client, state: RunState, output: Format, *, profile: str | None = None, head: bool = True
) -> NoReturn:
    """Print how a run has ended, the driver's last words if it died, and exit with the run's code."""
    if state.status == "interrupted":
        _last_words(client, state.run_id)
    emit(
        output,
        result.document(state),
        result.summary(state, head=head),
        Text(),
        next_steps=result.next_steps(state, alias=_alias(client, state.run_id), profile=profile),
    )
    raise typer.Exit(result.exit_code(state.status))


def _until_the_end(client: Client, run: str, console: Console) -> RunState:
    return _in_a_table(client, run, console) if console.is_terminal else _in_lines(client, run)


def _in_a_table(client: Client, run: str, console: Console) -> RunState:
    with Live(console=console, auto_refresh=False) as screen:
        for state in client.watch(run):
            height = max(10, console.height - 1)
            table = live.progress(state, now=time.time(), width=console.width, height=height)
            screen.update(table, refresh=True)
    return state


def _in_lines(client: Client, run: str) -> RunState:
    before = None
    for state in client.watch(run):
        if state != before:
            for line in live.news(before, state):
                note(line)
        before = state
    return state


def _wish(console: Console) -> Literal["stop", "detach", "go on"]:
    """What Ctrl-C was meant to do. Without a terminal nobody can say, and a run is not ended by mistake: detach."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return "detach"
    question = Text.assemble(
        "\nThe run goes on by itself. ",
        *((letter, "bold") if len(letter) == 1 else letter for letter in ("s", "top it, ", "d", "etach, or ", "k")),
        "eep watching? ",
    )
    try:
        answer = console.input(question).strip().lower()[:1]
    except (KeyboardInterrupt, EOFError):
        console.print()
        return "detach"
    wishes: dict[str, Literal["stop", "detach"]] = {"s": "stop", "d": "detach"}
    return wishes.get(answer, "go on")


def _stop(client: Client, run: str, output: Format, profile: str | None) -> RunState:
    note("stopping: running trials keep their last checkpoint (Ctrl-C: do not wait for it)")
    try:
        return client.stop(run)
    except KeyboardInterrupt:
        _detached(client, run, output, profile)


def _detached(client: Client, run: str, output: Format, profile: str | None) -> NoReturn:
    state = client.state(run)
    note(f"detached: run {run} goes on ({state.status}) without this command")
    emit(output, result.document(state), next_steps=result.next_steps(state, profile=profile))
    raise typer.Exit(INTERRUPTED)


def _last_words(client: Client, run: str) -> None:
    note(f"the driver of {run} has ended without a word about it; the last lines of its log:")
    try:
        for line in deque(client.log(run), maxlen=LOG_LINES):
            note(f"  {line}")
    except NotFoundError as error:
        note(f"  {error}")


def _alias(client: Client, run: str) -> str:
    try:
        return client.plan(run).spec.registry.alias
    except ConflictError:  # planned by another version
        return "champion"
