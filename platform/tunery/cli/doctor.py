"""`platform doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.cli._checks import Check

PANEL = Panel.MACHINE
ORDER = 20


def command(profile: ProfileOption = None, output: OutputOption = Format.TABLE) -> None:
    """Look at this machine: what is installed, writable and reachable.

    Each line that is not well says what to do. Exit codes: 0 nothing that a run needs is missing, 6 a server or a
    folder is, 7 a part of tunery is not installed. With -o json: {ok, checks: [{name, ok, required, detail, todo}]}.
    """
    from tunery.cli._checks import all_checks
    from tunery.profile import load_profile

    home = Home.from_environment()
    report(list(all_checks(home, load_profile(profile, home))), output, well="all a run needs is here")


def report(checks: list[Check], output: Format, *, well: str) -> None:
    """Show the checks; typer.Exit with the worst exit code where something is missing that a run needs."""
    failed = [check for check in checks if check.required and not check.ok]
    fields = ("name", "ok", "required", "detail", "todo")
    shown = [{field: getattr(check, field) for field in fields} for check in checks]
    summary = Text(well, "green")
    if failed:
        summary = Text(f"a run needs: {', '.join(check.name for check in failed)}", "red")
    emit(output, {"ok": not failed, "checks": shown}, _table(checks), Text(), summary)
    if failed:
        # What is not installed comes first: without it the rest cannot be told for certain.
        raise typer.Exit(max(check.exit_code for check in failed))


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for check in checks:
        mark = Text("✓", "green") if check.ok else Text("✗", "red") if check.required else Text("!", "yellow")
        detail = Text(check.detail)
        if check.todo:
            detail.append(f"\n{check.todo}", "yellow")
        table.add_row(mark, Text(check.name), detail)
    return table
