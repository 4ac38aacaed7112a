"""`platform down`."""

from __future__ import annotations

from rich.text import Text

from tunery.cli import extras
from tunery.cli.options import OutputOption
from tunery.cli.output import Format, Panel, emit, note
from tunery.home import Home

PANEL = Panel.MACHINE
ORDER = 50


def command(output: OutputOption = Format.TABLE) -> None:
    """End what `platform up` has started, and nothing else. What it has kept stays, for the next `platform up`.

    Runs that are under way are interrupted, and told. Exit codes: 0 all has ended, 4 another `up` or `down` is at work,
    6 a process does not end. With -o json: {ended}.
    """
    extras.require("servers")
    from tunery.here.cluster import down
    from tunery.here.layout import Layout

    home = Home.from_environment()
    ended = down(home, note)
    said = f"ended: {', '.join(ended)}; what they have kept stays in {Layout.of(home).root}" if ended else NOTHING
    emit(output, {"ended": ended}, Text(said), next_steps=["platform up"])


NOTHING = "nothing is up: nothing was ended"
