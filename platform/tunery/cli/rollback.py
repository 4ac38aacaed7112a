"""`platform rollback`."""

from __future__ import annotations

from rich.text import Text

from tunery.cli import extras
from tunery.cli._models import AliasOption, NameArgument, WhyOption, decision
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit
from tunery.home import who

PANEL = Panel.MODELS
ORDER = 50


def command(
    model: NameArgument,
    why: WhyOption = "",
    alias: AliasOption = "champion",
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Give the champion's alias back to the version that held it before. Again: one further back.

    With -o json: as `platform promote`.
    """
    extras.require("cluster")
    from tunery.inference.source import open_registry

    with open_registry(profile=profile) as registry:
        move = registry.rollback(model, alias, by=who(), why=why)
    line = f"{model}@{alias} is version {move.to_version} again; it was version {move.from_version}"
    emit(output, decision(move), Text(line), next_steps=[f"platform history {model}"])
