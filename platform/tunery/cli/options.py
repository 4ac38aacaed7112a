"""Arguments and options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tunery.cli.output import Format

SpecArgument = Annotated[
    Path, typer.Argument(metavar="SPEC", help="The spec: a YAML or JSON file.", show_default=False)
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or its name if that is enough.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the spec: a dotted path and a YAML value, as in --set train.epochs=1. Repeatable.",
        show_default=False,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="The profile of ~/.config/tunery/config.toml to use.",
        show_default="its default, or 'local'",
    ),
]
OfflineOption = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="HF_HUB_OFFLINE",
        help="Use only what `platform fetch` has brought, and say what is missing.",
        show_default=False,
    ),
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over, in a new run beside the one that is there, which stays as it is.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="CHECKPOINT",
        # Escaped, or rich takes the brackets for its own.
        help=r"RUN\[/STUDY]/TRIAL\[@STEP], or a checkpoint's folder; without a step the newest good one.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Format,
    typer.Option("--output", "-o", help="json: one JSON document on stdout and nothing else there.", show_default=True),
]


def spec_command(
    name: str, spec: Path, set_: Sequence[str] | None = None, profile: str | None = None, *, offline: bool = False
) -> str:
    """The command line that does `name` with the same spec, changes and profile: for hints."""
    changes = [word for change in set_ or () for word in ("--set", change)]
    place = ["--profile", profile] if profile else []
    return shlex.join(["platform", name, str(spec), *changes, *place, *(["--offline"] if offline else [])])
