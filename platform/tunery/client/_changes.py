"""What is different between two specs, told by dotted paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from tunery.runs import name_of

Json = Mapping[str, object]

ABSENT = "(not set)"
SHOWN = 20
"""Differences listed before the rest is only counted."""


def flatten(value: Json, prefix: str = "") -> dict[str, object]:
    """Dotted path -> value. Lists are values: `tasks` in another order is one difference, not nine."""
    flat: dict[str, object] = {}
    for key, item in value.items():
        path = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            flat.update(flatten(cast("Json", item), f"{path}."))
        else:
            flat[path] = item
    return flat


def differences(old: Json, new: Json) -> dict[str, tuple[str, str]]:
    """Dotted path -> (old, new), each as JSON text, for the paths whose values differ."""
    before, after = flatten(old), flatten(new)
    texts = {path: (_text(before, path), _text(after, path)) for path in sorted(before.keys() | after.keys())}
    return {path: pair for path, pair in texts.items() if pair[0] != pair[1]}


def describe(found: Mapping[str, tuple[str, str]]) -> str:
    """One indented line a difference: `path: old -> new`."""
    width = max((len(path) for path in found), default=0)
    lines = [f"  {path + ':':<{width + 1}} {old} -> {new}" for path, (old, new) in found.items()]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"  ... and {len(lines) - SHOWN} more"]
    return "\n".join(lines)


def refusal(run: str, status: str, old: Json, new: Json) -> str:
    """What is said of a plan whose name is that of a run with another content: `old` and `new` are the specs."""
    shown = describe(differences(old, new)) or "  (its values are the same: another version of tunery has planned it)"
    name = name_of(run)
    return (
        f"there is a run named {name!r} already, with another content; nothing was started\n"
        f"{shown}\n"
        f"the old values are those of {run} ({status}); "
        f"to run the new ones, give them another name: --set name={name}-2"
    )


def _text(flat: Json, path: str) -> str:
    return json.dumps(flat[path], ensure_ascii=False) if path in flat else ABSENT
