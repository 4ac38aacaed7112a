"""What a base's shape, where it is known without loading it, says of a spec: targets that are not there, ranks above
what a layer has, layers that cannot be trained whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tuners
from tunery.spec.base_model import Shape, shape_of
from tunery.spec.check import Fault
from tunery.spec.explain import suggest
from tunery.spec.tree import Path

_TARGETS, _RANK, _WHOLE = "tuner.target_modules", "tuner.rank", "tuner.modules_to_save"
_Named = tuple[Path, Any]
"""A value and where it stands."""


def misfits(tree: Mapping[str, Any]) -> Iterator[Fault]:
    """Of a spec whose fields are right and whose folders are absolute."""
    ids = [tree["model"]["id"], *tree.get("matrix", {}).get("model.id", ())]
    shapes = {model: shape for model in dict.fromkeys(ids) if (shape := shape_of(model)) is not None}
    targets, ranks = list(_values(tree, _TARGETS)), list(_values(tree, _RANK))
    listed = [tree["tuner"].get("target_modules"), *(names for _, names in targets)]
    for model, shape in shapes.items():
        yield from _unknown_targets(targets, model, shape)
        yield from _wide_ranks(ranks, listed, model, shape)
        yield from _whole_layers(tree, model, shape)


def _whole_layers(tree: Mapping[str, Any], model: str, shape: Shape) -> Iterator[Fault]:
    """Layers of the base itself: a head is every trial's own, and trained whole anyway."""
    workers = tree.get("resources", {}).get("workers", 1)
    parts = [f"{workers} workers have a part of the base's weights each: use resources.workers: 1"] * (workers > 1)
    for path, names in _values(tree, _WHOLE):
        reasons = [
            f"a base in 4 bits has no weights to train (method {name}): use method lora"
            for name in _methods_with(tree, path)
            if tuners.config_class(name).model_validate({"method": name}).quantisation != "none"
        ] + parts
        for index, name in enumerate(names if reasons else ()):
            if str(name).rpartition(".")[2] in shape.linears():
                yield Fault((*path, index), f"{name!r} of {model} cannot be trained whole: {reasons[0]}")


def _methods_with(tree: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Methods of the studies that get the modules to save which stand at a path."""
    overrides: Mapping[str, Mapping[str, Any]] = tree.get("overrides", {})
    general = tree.get("matrix", {}).get("tuner.method") or [tree["tuner"]["method"]]
    tasks = (
        [path[1]]
        if path[0] == "overrides"
        else [task for task in tree["tasks"] if _WHOLE not in overrides.get(task, {})]
    )
    own = [overrides.get(str(task), {}).get("tuner.method") for task in tasks]
    return tuple(dict.fromkeys(method for each in own for method in ([each] if each else general)))


def _values(tree: Mapping[str, Any], path: str) -> Iterator[_Named]:
    """All that a path is given, wherever it is: the tuner's own, the matrix', the overrides', the space's ends."""
    name = path.removeprefix("tuner.")
    if (own := tree["tuner"].get(name)) is not None:
        yield ("tuner", name), own
    for index, value in enumerate(tree.get("matrix", {}).get(path, ())):
        yield ("matrix", path, index), value
    for task, changes in tree.get("overrides", {}).items():
        if path in changes:
            yield ("overrides", task, path), changes[path]
    for kind, values in tree.get("search", {}).get("space", {}).get(path, {}).items():
        for index, value in enumerate(values):
            yield ("search", "space", path, kind, index), value


def _unknown_targets(targets: Iterable[_Named], model: str, shape: Shape) -> Iterator[Fault]:
    known = tuple(shape.linears())
    for path, names in targets:
        for index, name in enumerate(() if isinstance(names, str) else names):
            if str(name).rpartition(".")[2] not in known:
                yield Fault((*path, index), f"target module {name!r} is no layer of {model}; {suggest(name, known)}")


def _wide_ranks(ranks: Iterable[_Named], targets: Iterable[Any], model: str, shape: Shape) -> Iterator[Fault]:
    linears = shape.linears()
    wanted = [tuple(linears) if isinstance(each, str) else each or shape.default_targets for each in targets]
    names = [str(name).rpartition(".")[2] for each in wanted for name in each]
    layers = [(min(ends), name, ends) for name in names for ends in linears.get(name, ())]
    if not layers:
        return
    most, narrowest, (inner, outer) = min(layers)
    for path, rank in ranks:
        if isinstance(rank, int) and rank > most:
            wide = f"{narrowest} of {model} ({outer} x {inner})"
            yield Fault(path, f"tuner.rank: {rank} is above what {wide} allows; at most {most} fits")
