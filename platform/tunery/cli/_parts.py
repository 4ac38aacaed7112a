"""The parts of this machine's cluster, as `up` and `ps` show them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tunery.cli.output import table
from tunery.here.cluster import Seen

_STYLES = {"well": "green", "not well": "red", "gone": "red", "down": "dim"}


def document(seen: Sequence[Seen]) -> dict[str, object]:
    """For -o json."""
    return {
        "parts": [
            {
                "part": each.part,
                "condition": each.condition,
                "trouble": each.trouble,
                "pid": each.pid,
                "address": each.address,
                "log": each.log,
            }
            for each in seen
        ]
    }


def listed(seen: Sequence[Seen]) -> Table:
    """A row a part."""
    shown = table("part", "state", "pid", "address", "log", numbers=("pid",))
    for each in seen:
        state = Text(each.condition, _STYLES[each.condition])
        if each.trouble:
            state.append(f": {each.trouble}")
        shown.add_row(each.title, state, str(each.pid or ""), each.address, Text(str(each.log), overflow="fold"))
    return shown
