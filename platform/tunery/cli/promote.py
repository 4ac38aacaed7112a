"""`platform promote`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli._models import AliasOption, WhyOption, decision
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit
from tunery.errors import InputError
from tunery.home import who

PANEL = Panel.MODELS
ORDER = 40


def command(
    version: Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="A registered version.", show_default=False)],
    why: WhyOption = "",
    alias: AliasOption = "champion",
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a version the champion, by hand and past the gate. The history keeps who, when and why.

    With -o json: {model, alias, verdict, from_version, to_version, objective, from_value, to_value, at, by, why}.
    """
    extras.require("cluster")
    from tunery.inference.card import Score
    from tunery.inference.source import open_registry

    if "/" not in version and "@" not in version:
        raise InputError(f"which version of {version}? Write {version}/3; platform history {version} lists them")
    with open_registry(profile=profile) as registry:
        chosen = registry.resolve(version)
        holder = registry.champion(chosen.model, alias)
        new, old = Score.from_tags(chosen.tags), Score.from_tags(holder.tags) if holder else None
        comparable = new is not None and old is not None and new.comparable(old)
        move = registry.promote(
            chosen.model,
            chosen.version,
            alias,
            by=who(),
            why=why,
            verdict="manual",
            expected=holder.version if holder else None,
            objective=new.objective if new else "",
            from_value=old.value if old and comparable else None,
            to_value=new.value if new else None,
        )
    was = f"was version {move.from_version}" if move.from_version else "had no version before"
    line = f"{move.model}@{alias} is version {move.to_version} now; it {was}"
    if move.from_version == move.to_version:
        line = f"{move.model}@{alias} is version {move.to_version} already"
    emit(output, decision(move), Text(line), next_steps=[f"platform history {move.model}"])
