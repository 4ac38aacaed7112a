"""`platform up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli.options import OutputOption
from tunery.cli.output import Format, Panel, emit, note
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.here.cluster import Brought

PANEL = Panel.MACHINE
ORDER = 30


def command(
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=0, help="Ray nodes beside the head.", show_default="as before, or 0"),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus", min=1, help="CPUs for all nodes together.", show_default="as before, or all"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="Of artifacts and checkpoints: s3://BUCKET/PREFIX, with its key and endpoint in AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL; or a folder.",
            show_default="as before, or the cluster's folder",
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make this machine a small cluster: Ray with a token, MLflow with a login, Postgres where it is installed.

    Each part is waited for until it is well. What is up already is left alone; what has died since is started again,
    where it was. Plans go there with the profile `here`. `platform ps` shows it, `platform down` ends it.

    Exit codes: 0 all is well, 4 it is up in another size, has another store or a port is taken, 6 a part does not come
    up, 7 a part of tunery is not installed. With -o json: {started, database, parts}, the parts as `ps` has them.
    """
    extras.require("cluster", "servers")
    from random import Random

    from tunery.cli._parts import document, listed
    from tunery.here.cluster import up

    home = Home.from_environment()
    brought = up(home, note, workers=workers, cpus=cpus, random=Random(), store=store)
    emit(
        output,
        {"started": brought.started, "database": brought.database, **document(brought.seen)},
        listed(brought.seen),
        Text(_in_a_line(brought, home)),
        next_steps=["platform submit SPEC --profile here"],
    )


def _in_a_line(brought: Brought, home: Home) -> str:
    from tunery.here.layout import Layout
    from tunery.here.mlflow import PASSWORD_FILE, USER
    from tunery.here.ray import TOKEN_FILE

    layout = Layout.of(home)
    password = layout.secret_file(PASSWORD_FILE)
    done = f"started: {', '.join(brought.started)}" if brought.started else "all was up already: nothing was started"
    return (
        f"{done}\nMLflow's pages ask for {USER} and what is in {password}; "
        f"Ray's dashboard for what is in {layout.secret_file(TOKEN_FILE)}"
    )
