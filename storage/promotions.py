"""What the registry deals in: versions, decisions about aliases, and how those are noted. Pure; loads no MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_PREFIX = "tunery.promotion."
_LONGEST_WHY = 2000  # characters; a tag holds 5000 in the oldest databases

Decision = Literal["promoted", "refused", "manual", "rollback"]


@dataclass(frozen=True)
class Version:
    """One registered adapter."""

    model: str
    version: str
    run_id: str
    """MLflow's id of the trial's run, whose artifacts hold the adapter."""
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created_ms: int


@dataclass(frozen=True)
class Promotion:
    """One decision about an alias."""

    model: str
    alias: str
    from_version: str | None
    """What held the alias before; None: nothing did."""
    to_version: str
    """What holds it since, or, where `verdict` is refused, what was not promoted."""
    at_ms: int
    by: str
    why: str
    verdict: Decision
    objective: str = ""
    from_value: float | None = None
    to_value: float | None = None


@dataclass(frozen=True)
class Note:
    """A decision as a tag of the registered model."""

    number: int
    """Decisions are ordered by it, and by nobody's clock."""
    done: bool
    """False: intended; whether it happened, the alias tells."""
    promotion: Promotion

    @property
    def key(self) -> str:
        return f"{_PREFIX}{self.number:08d}"

    def to_text(self) -> str:
        entry = asdict(self.promotion) | {"why": self.promotion.why[:_LONGEST_WHY], "done": self.done}
        del entry["model"]
        return json.dumps(entry)


def notes(model: str, tags: Mapping[str, str]) -> list[Note]:
    """The notes among a registered model's tags, oldest first."""
    return sorted((_note(model, k, v) for k, v in tags.items() if k.startswith(_PREFIX)), key=lambda n: n.number)


def holders(history: Iterable[Promotion], alias: str, holder: str | None) -> list[str]:
    """The versions a rollback goes back through, the present holder's last."""
    stack: list[str] = []
    for move in history:
        if move.alias != alias or move.verdict == "refused":
            continue
        if move.from_version is not None and stack[-1:] != [move.from_version]:
            stack.append(move.from_version)  # moved by something that keeps no notes
        if move.verdict == "rollback" and move.to_version in stack:
            while stack[-1] != move.to_version:
                stack.pop()
        else:
            stack.append(move.to_version)
    return stack[:-1] if stack[-1:] == [holder] else stack


def version_of(found: ModelVersion) -> Version:
    tags, aliases = dict(found.tags), tuple(found.aliases)
    return Version(found.name, str(found.version), found.run_id or "", found.source or "", tags, aliases,
                   int(found.creation_timestamp))  # fmt: skip


def _note(model: str, key: str, text: str) -> Note:
    stored: dict[str, Any] = json.loads(text)
    known = {field.name for field in fields(Promotion)} - {"model"}
    # Read leniently: a newer version of us may have noted more.
    promotion = Promotion(model, **{name: value for name, value in stored.items() if name in known})
    return Note(int(key.removeprefix(_PREFIX)), bool(stored["done"]), promotion)
