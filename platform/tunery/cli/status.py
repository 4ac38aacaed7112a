"""`platform status`."""

from __future__ import annotations

import sys
import time

from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit, stdout

PANEL = Panel.RUNS
ORDER = 30


def command(run: RunArgument, profile: ProfileOption = None, output: OutputOption = Format.TABLE) -> None:
    """Show how a run stands: its trials, and what came of it.

    A run whose driver has died is `interrupted`, whatever it said last. Exit code 0 whatever the status is.
    """
    from tunery.report import live, result

    _, client = here(profile)
    state = client.state(client.find(run))
    now = time.time()
    document = {
        **result.document(state),
        "phase": state.phase,
        "started_at": state.started_at or None,
        "updated_at": state.updated_at or None,
        "ended_at": state.ended_at,
        "time_left_s": live.time_left(state, now=now),
    }
    table = live.progress(state, now=now, width=stdout().width, height=sys.maxsize)
    emit(output, document, table, next_steps=result.next_steps(state, profile=profile))
