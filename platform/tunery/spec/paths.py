"""Dotted paths such as `train.epochs`: which there are, which may be searched or overridden, and setting values.

Where a field is declared is the only place that says what it may be: everything here is read from the models.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

import tuners
from tuners.config import CheckpointConfig, TrainConfig
from tunery.spec.explain import explain, suggest
from tunery.spec.space import KINDS
from tunery.spec.tree import Path, Tree
from tunery.spec.types import DataSpec, ModelSpec, PrunerSpec, RerunSpec, SamplerSpec, SearchSpec, Spec

_SECTIONS: dict[str, type[BaseModel]] = {
    "train": TrainConfig,
    "train.checkpoint": CheckpointConfig,
    "search": SearchSpec,
    "search.sampler": SamplerSpec,
    "search.pruner": PrunerSpec,
    "search.rerun_best": RerunSpec,
    "data": DataSpec,
    "model": ModelSpec,
}
_NO_RESULT = "it changes no result, only what is kept; use `overrides` to set it for one task"
_NOT_SEARCHED = {
    "train.max_length": "the rows are cut and tokenised once, before the trials",
    "train.max_new_tokens": "the room that a prompt leaves for its answer is cut once, before the trials",
    "train.checkpoint": _NO_RESULT,
    "train.checkpoint.every_steps": _NO_RESULT,
    "train.checkpoint.keep": _NO_RESULT,
    "tuner.method": "a trial keeps its study's method; use `matrix` to compare methods",
    "tuner.double_quantisation": "a study's trials share one base; use `matrix` to compare bases",
    "tuner.dequantise": "a study's trials share one base, and the results are the same",
    "tuner.quantise": "a study's trials share one base; use `matrix` to compare bases",
    "tuner.kept_mib": "a study's trials share one base, and the results are the same",
}
_OVERRIDDEN = ("train", "train.checkpoint", "tuner", "search", "search.sampler", "search.pruner", "data")
# Where rows come from is the same for a whole sweep; the budget of a study is set as a whole.
_NOT_OVERRIDDEN = {
    *("search.space", "search.sampler", "search.pruner", "search.rerun_best"),
    *("data.source", "data.root"),
    "train.checkpoint",
}


def section_class(section: str, method: str | None = None) -> type[BaseModel] | None:
    """The model behind a section of the spec (`train`, `search.pruner`, ...). For `tuner`, that of the method."""
    if section == "tuner":
        return tuners.config_class(method) if method in tuners.names() else None
    return _SECTIONS.get(section)


def known_methods() -> tuple[str, ...]:
    """The tuning methods there are."""
    return tuners.names()


def split(path: str) -> tuple[str, str]:
    """`search.pruner.name` -> (`search.pruner`, `name`)."""
    section, _, name = path.rpartition(".")
    return section, name


def _paths(sections: Iterable[str], methods: Iterable[str]) -> dict[str, FieldInfo]:
    """Of a tuner those of all these methods; of every known one where there are none."""
    found: dict[str, FieldInfo] = {}
    methods = tuple(methods) or tuners.names()
    for section in sections:
        for method in methods if section == "tuner" else ("",):
            cls = section_class(section, method)
            fields = cls.model_fields if cls else {}
            found |= {f"{section}.{name}": info for name, info in fields.items() if not name.startswith("_")}
    return found


def overridable(methods: Iterable[str]) -> tuple[str, ...]:
    """The paths a task may override."""
    found = _paths(_OVERRIDDEN, methods)
    return tuple(path for path in found if path not in _NOT_OVERRIDDEN)


def matrix_paths(methods: Iterable[str]) -> tuple[str, ...]:
    """The paths a matrix may vary."""
    return (*overridable(methods), *_paths(("model",), ()))


def searchable(methods: Iterable[str]) -> tuple[str, ...]:
    """The paths a range may stand for."""
    found = _paths(("train", "tuner"), methods)
    return tuple(path for path, info in found.items() if path not in _NOT_SEARCHED and not takes_list(info))


def takes_list(info: FieldInfo) -> bool:
    """Whether a field's value is a list."""
    return any(
        getattr(kind, "__origin__", None) in (tuple, list) for kind in (info.annotation, *get_args(info.annotation))
    )


def why_not_searched(path: str, methods: Iterable[str]) -> str:
    """What is wrong with a path of the search space; empty if nothing is."""
    methods = tuple(methods)
    allowed = searchable(methods)
    if path in allowed:
        return why_not_everywhere(path, methods)
    if path in _NOT_SEARCHED:
        return f"{path} cannot be searched: {_NOT_SEARCHED[path]}"
    known = _paths(("train", "tuner"), methods)
    if path in known:
        return f"{path} cannot be searched: its value is a list; use `matrix` to compare lists"
    if path.split(".")[0] in ("data", "model"):
        return f"{path} cannot be searched: a sweep's trials share the model and the rows; use `matrix` to compare them"
    return f"unknown path {path[:80]!r}; {suggest(path, allowed)}"


def why_not_everywhere(path: str, methods: Iterable[str]) -> str:
    """A tuner's path must be one of every method the spec compares; empty if it is."""
    without = [method for method in methods if path not in _paths((split(path)[0],), (method,))]
    return f"the method {', '.join(without)} has no {path}" if without else ""


def why_wrong(path: str, value: Tree, methods: Iterable[str]) -> str:
    """What is wrong with a value at a path, by the field's own rules; empty if nothing is.

    A tuner's field has to fit every one of the methods that have it.
    """
    section, name = split(path)
    for method in (tuple(methods) or tuners.names()) if section == "tuner" else ("",):
        cls = section_class(section, method)
        if cls is None or name not in cls.model_fields:
            continue
        if path == "tuner.method":
            return "" if value in tuners.names() else f"unknown method {value!r}; {suggest(value, tuners.names())}"
        for error in errors_of(cls, {name: value}):
            if error["loc"][:1] == (name,):
                return explain(error, value)
    return ""


def errors_of(cls: type[BaseModel], tree: Mapping[str, Tree]) -> Sequence[Any]:
    """pydantic's errors for plain data, read as strictly as JSON is."""
    try:
        cls.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        return error.errors(include_url=False)
    return ()


def keys_at(path: Path, tree: Tree) -> tuple[str, ...]:
    """The keys known at a place of the spec, for messages."""
    if path == ():
        return tuple(info.alias or name for name, info in Spec.model_fields.items())
    if path[:2] == ("search", "space"):
        return KINDS
    method = tree["tuner"].get("method") if isinstance(tree, dict) and isinstance(tree.get("tuner"), dict) else None
    cls = section_class(".".join(map(str, path)), method) or _field_class(path)
    return tuple(cls.model_fields) if cls else ()


def _field_class(path: Path) -> type[BaseModel] | None:
    info = Spec.model_fields.get(str(path[0])) if len(path) == 1 else None
    for candidate in (info.annotation, *get_args(info.annotation)) if info else ():
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def overlay(tree: Mapping[str, Tree], values: Mapping[str, Tree]) -> dict[str, Tree]:
    """A copy of a nested tree with dotted paths set. A change of method keeps the fields that the new method has."""
    copied = copy.deepcopy(dict(tree))
    for path, value in values.items():
        *sections, name = path.split(".")
        inner = copied
        for section in sections:
            inner = inner.setdefault(section, {})
        # A section given whole (`train.checkpoint`) must not be the caller's: a path below it may be set next.
        inner[name] = list(value) if isinstance(value, tuple) else copy.deepcopy(value)
        if path == "tuner.method":
            fields = tuners.config_class(str(value)).model_fields
            copied["tuner"] = {key: kept for key, kept in inner.items() if key in fields}
    return copied
