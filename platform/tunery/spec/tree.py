"""YAML (and so JSON) as a plain tree that remembers where everything stood.

Built from the parser's events rather than with PyYAML's constructors: that keeps the places, and what a spec must not
hold (tags, anchors and aliases, duplicate keys, a second document) is seen before it can do anything. Plain scalars
are read by the rules of YAML 1.2's core schema, where 1e-5 is a number and `no` is a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from tunery.errors import Mistake, SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_MISTAKES = 100
"""After that many the rest is not looked for: the first ones are what has to be mended anyway."""

Path = tuple[str | int, ...]
Tree = Any
"""dict[str, Tree] | list[Tree] | str | int | float | bool | None"""

_INT = re.compile(r"[-+]?[0-9]{1,400}")
_BASED_INT = re.compile(r"0(?:x[0-9a-fA-F]{1,300}|o[0-7]{1,300})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Tree] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Place:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass
class Source:
    """A parsed file: its tree, and where each key and each value of it stands."""

    file: str
    tree: Tree = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    sets: dict[Path, str] = field(default_factory=dict)
    """Path -> the `--set ...` of the command line that wrote it."""

    def set_by(self, path: Path) -> str:
        """The `--set ...` that wrote what stands at a path; empty if it is the file's."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.sets:
                return self.sets[path[:length]]
        return ""

    def mistake(self, path: Path, message: str, *, at_key: bool = False) -> Mistake:
        """A mistake at a path, or at the nearest thing above it that stands in the file."""
        if option := self.set_by(path):
            return Mistake(option, 0, 0, message)
        for length in range(len(path), -1, -1):
            known = path[:length]
            places = self.keys if at_key and length == len(path) and known in self.keys else self.values
            if place := places.get(known):
                return Mistake(self.file, place.line, place.column, message)
        return Mistake(self.file, 1, 1, message)


def parse(text: str, *, file: str) -> Source:
    """The tree of a YAML text. SpecError with everything in it that is not allowed."""
    if found := _UNPRINTABLE.search(text):
        before = text[: found.start()]
        place = Place(before.count("\n") + 1, found.start() - before.rfind("\n"))
        raise SpecError([Mistake(file, place.line, place.column, f"a character that is not text: {found.group()!r}")])
    if len(text.encode()) > MAX_BYTES:
        raise SpecError([Mistake(file, 1, 1, f"larger than {MAX_BYTES / 1e6:g} MB, the most a spec may have")])
    builder = _Builder(Source(file))
    try:
        builder.build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(filter(None, (error.context, error.problem)))
        builder.mistakes.append(Mistake(file, line, column, f"not YAML: {what}"))
    except (yaml.YAMLError, ValueError) as error:
        builder.mistakes.append(Mistake(file, 1, 1, f"not YAML: {error}"))
    except _EnoughError:
        pass
    if builder.mistakes:
        raise SpecError(builder.mistakes)
    return builder.source


def resolve(text: str) -> Tree:
    """A plain (unquoted) scalar's value."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _EnoughError(Exception):
    """Stop reading: what is known is enough, or reading on would take too long."""


def _place(event: Event) -> Place:
    assert event.start_mark is not None
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    path: Path
    container: dict[str, Tree] | list[Tree]
    key: str | None = None


@dataclass
class _Builder:
    source: Source
    mistakes: list[Mistake] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    nodes: int = 0
    documents: int = 0

    def build(self, text: str) -> None:
        # The C parser is some 20 times faster, and is in every wheel of PyYAML.
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(text)
        while not isinstance(event := loader.get_event(), StreamEndEvent):
            self._take(event)

    def _refuse(self, event: Event, message: str, *, stop: bool = False) -> None:
        place = _place(event)
        self.mistakes.append(Mistake(self.source.file, place.line, place.column, message))
        if stop or len(self.mistakes) >= MAX_MISTAKES:
            raise _EnoughError

    def _take(self, event: Event) -> None:
        match event:
            case DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self._refuse(event, "a second document; a file holds one spec", stop=True)
            case NodeEvent():
                self._count(event)
                self._node(event)
            case MappingEndEvent() | SequenceEndEvent():
                self.stack.pop()

    def _count(self, event: NodeEvent) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self._refuse(event, f"more than {MAX_NODES} values; a spec has some dozens", stop=True)
        if tag := getattr(event, "tag", None):
            self._refuse(event, f"a YAML tag ({tag}); a spec holds plain values only")
        if event.anchor is not None:
            what = "alias" if isinstance(event, AliasEvent) else "anchor"
            self._refuse(event, f"a YAML {what} ({event.anchor!r}); write the value out where it is needed")

    def _node(self, event: NodeEvent) -> None:
        top = self.stack[-1] if self.stack else None
        if top and isinstance(top.container, dict) and top.key is None:
            self._key(top, event)
            return
        match event:
            case MappingStartEvent():
                value: Tree = {}
            case SequenceStartEvent():
                value = []
            case ScalarEvent():
                value = resolve(event.value) if event.implicit[0] else event.value
                if isinstance(value, str) and _CONTROL.search(value):
                    self._refuse(event, f"a control character in {value[:40]!r}")
            case _:
                value = None
        path = self._put(top, value)
        self.source.values.setdefault(path, _place(event))
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self.stack) >= MAX_DEPTH:
                self._refuse(event, f"nested deeper than {MAX_DEPTH} levels", stop=True)
            self.stack.append(_Open(path, value))

    def _put(self, top: _Open | None, value: Tree) -> Path:
        if top is None:
            self.source.tree = value
            return ()
        if isinstance(top.container, list):
            top.container.append(value)
            return (*top.path, len(top.container) - 1)
        assert top.key is not None
        path = (*top.path, top.key)
        top.container.setdefault(top.key, value)
        top.key = None
        return path

    def _key(self, top: _Open, event: NodeEvent) -> None:
        if not isinstance(event, ScalarEvent):
            self._refuse(event, "a key that is not a word", stop=True)
        assert isinstance(event, ScalarEvent)
        if _CONTROL.search(event.value):
            self._refuse(event, f"a control character in the key {event.value[:40]!r}")
        top.key = event.value
        path = (*top.path, top.key)
        place = _place(event)
        if path in self.source.keys:
            first = self.source.keys[path]
            self._refuse(event, f"duplicate key {top.key[:80]!r}; it stands in line {first.line} already")
        self.source.keys.setdefault(path, place)


def dotted(path: Sequence[str | int]) -> str:
    """`('search', 'space', 'tuner.rank', 'choice', 0)` as people write it: `search.space.tuner.rank.choice[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
