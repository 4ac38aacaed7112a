"""`platform history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunery.cli import extras
from tunery.cli._models import NameArgument, decision, moment
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, table

if TYPE_CHECKING:
    from storage.promotions import Promotion, Version

PANEL = Panel.MODELS
ORDER = 30


def command(model: NameArgument, profile: ProfileOption = None, output: OutputOption = Format.TABLE) -> None:
    """Show a model's versions, and every decision about its champion: who, when, why, from and to.

    With -o json: {model, aliases: {alias: version}, versions: [...], promotions: [...]}, both oldest first.
    """
    extras.require("cluster")
    from tunery.inference.source import open_registry

    with open_registry(profile=profile) as registry:
        promotions = registry.history(model)
        versions = registry.versions(model)
    shown = table("version", "alias", "objective", "task", "base", "made", "run", title=model)
    for version in versions:
        entry = _entry(version)
        value = "" if entry["value"] is None else f"{entry['objective']} {entry['value']:.4f}"
        shown.add_row(version.version, ", ".join(version.aliases), value, entry["task"], entry["base"],
                      entry["created_at"], entry["run"])  # fmt: skip
    document = {
        "model": model,
        "aliases": {alias: version.version for version in versions for alias in version.aliases},
        "versions": [_entry(version) for version in versions],
        "promotions": [decision(move) for move in promotions],
    }
    steps = [f"platform predict {model} --text '...'"] if document["aliases"] else []
    emit(output, document, shown, _decisions(promotions), next_steps=steps)


def _decisions(promotions: tuple[Promotion, ...]) -> Any:
    shown = table("when", "alias", "verdict", "from", "to", "why", "by", title="\ndecisions")
    for move in promotions:
        shown.add_row(moment(move.at_ms), move.alias, move.verdict, move.from_version or "-", move.to_version, move.why,
                      move.by)  # fmt: skip
    return shown


def _entry(version: Version) -> dict[str, Any]:
    from tunery.inference.card import Score

    score = Score.from_tags(version.tags)
    return {
        "version": version.version,
        "aliases": list(version.aliases),
        "objective": score.objective if score else "",
        "value": score.value if score else None,
        "task": version.tags.get("tunery.task", ""),
        "base": version.tags.get("tunery.base", ""),
        "run": version.tags.get("tunery.run", ""),
        "mlflow_run_id": version.run_id,
        "created_at": moment(version.created_ms),
    }
