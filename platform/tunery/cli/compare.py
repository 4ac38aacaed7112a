"""`platform compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tunery.cli._place import here
from tunery.cli.options import OutputOption, ProfileOption, RunArgument
from tunery.cli.output import Format, Panel, emit
from tunery.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.report.trials import Draws

PANEL = Panel.RUNS
ORDER = 70


def command(
    run: RunArgument,
    study: Annotated[str | None, typer.Option("--study", metavar="NAME", help="Only this study.")] = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Compare a run's trials: a table a study, best first.

    What was drawn, what came of it, and why a trial has failed. The trial with the spec's own values is marked *.
    """
    from tunery.report import trials

    _, client = here(profile)
    state = client.state(client.find(run))
    if study is not None:
        chosen = tuple(each for each in state.studies if each.name == study)
        if not chosen:
            known = ", ".join(each.name for each in state.studies) or "none yet"
            raise NotFoundError(f"run {state.run_id} has no study {study!r}; known: {known}")
        state = state.model_copy(update={"studies": chosen})
    defaults = _defaults(client, state.run_id)
    begun = [each for each in state.studies if each.trials]
    table = trials.comparison(begun, defaults) if begun else Text(f"run {state.run_id} has no trials yet")
    emit(output, trials.document(state, defaults), table)


def _defaults(client: Client, run: str) -> Draws:
    try:
        return {study.name: study.default_draw() for study in client.plan(run).studies}
    except ConflictError:  # planned by another version: its trials can be compared all the same
        return {}
