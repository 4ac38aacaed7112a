"""Reading a spec: from a file or a text to a `Spec`, or to a `SpecError` with every mistake and its place."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from storage.models import is_folder
from tunery.errors import Mistake, SpecError
from tunery.spec import paths
from tunery.spec.check import check
from tunery.spec.explain import explain, show, suggest
from tunery.spec.fit import misfits
from tunery.spec.tree import MAX_BYTES, MAX_MISTAKES, Path, Source, Tree, dotted, parse
from tunery.spec.types import Spec

# What people look for in a spec and what a profile is for.
_PROFILE_KEYS = frozenset(
    {"address", "artifacts", "entrypoint", "env", "env_vars", "environment", "password", "pip", "registry_uri"}
    | {"runtime_env", "secret", "secrets", "token", "tracking_uri", "uri", "url"}
)


def load_spec(path: FilePath | str, *, overrides: Sequence[str] = ()) -> Spec:
    """The spec of a YAML or JSON file. `overrides`: `key=value` with a dotted key and a YAML value, as after `--set`.

    A relative `data.root` or model folder is taken from the file's own folder (one that was given in `overrides`: from
    the working directory, where it was typed).
    """
    file = FilePath(path)
    return parse_spec(_read(file), file=str(path), folder=file.parent, overrides=overrides)


def parse_spec(text: str, *, file: str, folder: FilePath | None = None, overrides: Sequence[str] = ()) -> Spec:
    """The spec of a text. `file` is its name in messages; folders in it are relative to `folder`."""
    source = parse(text, file=file)
    if not isinstance(source.tree, dict):
        got = "an empty file" if source.tree is None else show(source.tree)
        raise SpecError([source.mistake((), f"expected a mapping with the keys of a spec, got {got}")])
    mistakes = [wrong for override in overrides if (wrong := _set(source, override))]
    mistakes += _mistakes(source)
    if mistakes:
        raise SpecError(mistakes[:MAX_MISTAKES])
    _resolve_folders(source, folder or FilePath())
    if faults := list(misfits(source.tree)):
        raise SpecError([source.mistake(fault.path, fault.message) for fault in faults[:MAX_MISTAKES]])
    return Spec.model_validate_json(json.dumps(source.tree), strict=True)


def _read(file: FilePath) -> str:
    try:
        with file.open("rb") as handle:
            content = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        near = [other.name for other in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        close = difflib.get_close_matches(file.name, near, n=1)
        hint = f"; did you mean {str(file.parent / close[0])!r}?" if close else ""
        raise SpecError([Mistake(str(file), 0, 0, f"no such file{hint}")]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError([Mistake(str(file), 0, 0, f"cannot be read: {reason}")]) from error
    if len(content) > MAX_BYTES:
        raise SpecError([Mistake(str(file), 1, 1, f"larger than {MAX_BYTES / 1e6:g} MB, the most a spec may have")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise SpecError([Mistake(str(file), line, column, f"not UTF-8: byte 0x{content[error.start]:02x}")]) from None


def _set(source: Source, override: str) -> Mistake | None:
    """Put one `key=value` into the tree; a mistake where that cannot be done."""
    key, equals, value = override.partition("=")
    label = f"--set {key}"
    if not equals or not key:
        return Mistake(f"--set {override}", 0, 0, "expected KEY=VALUE, such as train.epochs=3")
    try:
        parsed = parse(value, file=label).tree
    except SpecError as error:
        return Mistake(label, 0, 0, error.mistakes[0].message)
    path = _set_path(key)
    inner = source.tree
    for depth, part in enumerate(path[:-1]):
        if inner.get(part) is None:
            inner[part] = {}
        inner = inner[part]
        if not isinstance(inner, dict):
            return Mistake(label, 0, 0, f"{dotted(path[: depth + 1])} is not a mapping in {source.file}")
    inner[path[-1]] = parsed
    source.sets[path] = label
    return None


def _set_path(key: str) -> Path:
    """`search.space.train.epochs` -> (`search`, `space`, `train.epochs`): a space's keys have dots of their own."""
    parts = key.split(".")
    for prefix in (["search", "space"], ["matrix"], ["overrides", *parts[1:2]]):
        if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
            return (*prefix, ".".join(parts[len(prefix) :]))
    return tuple(parts)


def _mistakes(source: Source) -> list[Mistake]:
    told: set[Path] = set()
    found: list[Mistake] = []
    for path, message, at_key in _field_mistakes(source.tree):
        # A union reports once for each of its members.
        if path not in told:
            told.add(path)
            found.append(source.mistake(path, message, at_key=at_key))
        if len(found) >= MAX_MISTAKES:
            return found
    for fault in check(source.tree):
        if fault.path not in told:
            found.append(source.mistake(fault.path, fault.message, at_key=fault.at_key))
        if len(found) >= MAX_MISTAKES:
            break
    return found


def _field_mistakes(tree: Tree) -> Iterator[tuple[Path, str, bool]]:
    """What pydantic finds, in our words: path, message, whether it is about the key."""
    try:
        Spec.model_validate_json(json.dumps(tree), strict=True)
        return
    except ValidationError as error:
        errors: list[Any] = error.errors(include_url=False)
    words = {
        _locate(tree, each["loc"])[0]: each["ctx"]["expected"] for each in errors if each["type"] == "literal_error"
    }
    for each in errors:
        path, value = _locate(tree, each["loc"])
        match each["type"]:
            case "missing" if isinstance(value, list):
                yield path, f"{dotted(path)}: expected two ends, got {len(value)}", False
            case "missing":
                name = str(each["loc"][-1])
                yield (*path, name), f"missing key {name!r}{_inside(path)}", False
            case "union_tag_not_found" if isinstance(value, dict):
                known = ", ".join(paths.known_methods())
                yield (*path, "method"), f"missing key 'method'{_inside(path)}; known methods: {known}", False
            case "range_kind" if isinstance(value, dict) and len(value) == 1:
                key = next(iter(value))
                yield (
                    (*path, key),
                    f"unknown kind of range {show(key)}; {suggest(key, paths.keys_at(path, tree))}",
                    True,
                )
            case "extra_forbidden":
                yield path, _unknown_key(path, tree), True
            case _ if (path[:1] in (("overrides",), ("matrix",)) and len(path) > 2) or path[-2:-1] == ("choice",):
                yield path, f"{dotted(path)}: expected a number, a word, true or false, got {show(value)}", False
            case _:
                yield path, f"{dotted(path)}: {explain(each, value, words.get(path, ''))}", False


def _locate(tree: Tree, location: Sequence[str | int]) -> tuple[Path, Tree]:
    """The place in the tree of one of pydantic's locations, which name union members and tags as well."""
    path: list[str | int] = []
    for part in location:
        match tree, part:
            case (dict(), str()) if part in tree:
                tree = tree[part]
            case list(), int() if part < len(tree):
                tree = tree[part]
            case _:
                continue
        path.append(part)
    return tuple(path), tree


def _inside(path: Path) -> str:
    return f" in {dotted(path)}" if path else ""


def _unknown_key(path: Path, tree: Tree) -> str:
    key = str(path[-1])
    if key.lower() in _PROFILE_KEYS:
        return (
            f"unknown key {show(key)}{_inside(path[:-1])}: servers, packages, commands, environment variables and "
            f"secrets belong to a profile (~/.config/tunery/config.toml), not to a spec"
        )
    return f"unknown key {show(key)}{_inside(path[:-1])}; {suggest(key, paths.keys_at(path[:-1], tree))}"


def _resolve_folders(source: Source, folder: FilePath) -> None:
    """Make relative folders absolute: a plan is read elsewhere than where its spec lay."""

    def absolute(text: str, *at: str | int) -> str:
        # Not `resolve`: a link may be meant to point elsewhere tomorrow.
        base = FilePath() if source.set_by(at) else folder
        return os.path.abspath(base / FilePath(text).expanduser())

    data, model = source.tree.get("data"), source.tree["model"]
    if isinstance(data, dict) and data.get("root"):
        data["root"] = absolute(data["root"], "data", "root")
    if is_folder(model["id"]):
        model["id"] = absolute(model["id"], "model", "id")
    ids = source.tree.get("matrix", {}).get("model.id", [])
    for index, model_id in enumerate(ids):
        if is_folder(model_id):
            ids[index] = absolute(model_id, "matrix", "model.id")
