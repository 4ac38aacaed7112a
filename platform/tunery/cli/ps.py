"""`platform ps`."""

from __future__ import annotations

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli.options import OutputOption
from tunery.cli.output import Format, Panel, emit
from tunery.errors import UnreachableError
from tunery.home import Home

PANEL = Panel.MACHINE
ORDER = 40


def command(output: OutputOption = Format.TABLE) -> None:
    """Show the parts of the cluster that `platform up` has made of this machine, and how each is.

    Exit codes: 0 all that was started is well, 6 a part is not. With -o json: {parts: [{part, condition, trouble, pid,
    address, log}]}; a condition is well, not well, gone (it was started and has died) or down.
    """
    extras.require("servers")
    from tunery.cli._parts import document, listed
    from tunery.here.cluster import look

    seen = look(Home.from_environment())
    if not seen:
        emit(output, document(seen), Text("nothing was ever up here"), next_steps=["platform up"])
        return
    bad = any(each.condition in ("not well", "gone") for each in seen)
    up = any(each.condition != "down" for each in seen)
    steps = ["platform up"] if bad or not up else ["platform submit SPEC --profile here"]
    emit(output, document(seen), listed(seen), next_steps=steps)
    if bad:
        raise typer.Exit(UnreachableError.exit_code)
