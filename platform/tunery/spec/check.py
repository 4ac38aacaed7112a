"""What no field can say of itself: tasks that exist, paths that exist, ranges whose every value can be trained.

Works on the plain tree and takes only those parts that have the right shape, so that the mistakes of one part do not
hide those of another.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

import tuners
from storage.models import EMBEDDED, is_folder
from tunery import tasks
from tunery.spec import paths
from tunery.spec.explain import show, suggest
from tunery.spec.space import IntUniform, LogUniform, Range, Uniform
from tunery.spec.tree import Path, Tree, dotted
from tunery.tasks.custom import CustomTask

MAX_STUDIES = 1000
MAX_CELLS = 100_000
PLACEHOLDERS = ("name", "task", "cell", "method")

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]*")
_RANGE = TypeAdapter[Range](Range)


@dataclass(frozen=True)
class Fault:
    """A mistake at a path of the spec's tree."""

    path: Path
    message: str
    at_key: bool = False


def check(tree: Tree) -> Iterator[Fault]:
    """Everything that is wrong beyond the fields' own rules."""
    if not isinstance(tree, dict):
        return
    methods = methods_of(tree)
    yield from _variables((), tree)
    yield from _tasks(tree)
    yield from _custom(tree)
    yield from _model(("model", "id"), _at(tree, "model", "id"))
    yield from _source(tree)
    yield from _data(tree)
    yield from _space(tree, methods)
    yield from _grid(tree)
    yield from _reruns(tree)
    yield from _overrides(tree, methods)
    yield from _matrix(tree, methods)
    yield from _registry(tree)
    yield from _workers(tree, methods)
    yield from _paged(tree)


def _at(tree: Tree, *path: str) -> Tree:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _mapping(tree: Tree, *path: str) -> dict[str, Tree]:
    found = _at(tree, *path)
    return found if isinstance(found, dict) else {}


def methods_of(tree: Tree) -> tuple[str, ...]:
    """Every tuning method that some study of the spec uses; none where the spec names none that is known."""
    named = [_at(tree, "tuner", "method"), *(_at(tree, "matrix", "tuner.method") or [])]
    named += [
        changes.get("tuner.method") for changes in _mapping(tree, "overrides").values() if isinstance(changes, dict)
    ]
    return tuple(name for name in tuners.names() if name in named)


def _workers(tree: Tree, methods: tuple[str, ...]) -> Iterator[Fault]:
    workers = _at(tree, "resources", "workers")
    if not isinstance(workers, int) or workers < 2:
        return
    for name in methods:
        if tuners.config_class(name).model_validate({"method": name}).trains_beside:
            message = f"resources.workers: method {name} needs the base whole, expected 1 worker, got {workers}"
            yield Fault(("resources", "workers"), message)
    for path, value in _given(tree, "tuner.bias"):
        if value == "lora_only":
            message = (
                f"tuner.bias: lora_only trains the base's own weights, of which {workers} workers have a part each"
            )
            yield Fault(path, f"{message}: use bias none, or resources.workers: 1")


def _paged(tree: Tree) -> Iterator[Fault]:
    if _at(tree, "resources", "gpus_per_worker"):
        return
    for path, value in _given(tree, "train.optimizer"):
        if value == "paged_adamw_8bit":
            message = f"{dotted(path)}: paged_adamw_8bit needs a GPU (resources.gpus_per_worker): use adamw_8bit"
            yield Fault(path, message)


def _given(tree: Tree, name: str) -> Iterator[tuple[Path, Tree]]:
    """All that a path is given, and where: its own, the matrix', the overrides', the space's choices."""
    tasks_here = [None, *_mapping(tree, "overrides")]
    yield from dict(each for task in tasks_here for each in _values(tree, task, name)).items()
    choice = _at(tree, "search", "space", name, "choice")
    for index, value in enumerate(choice if isinstance(choice, list) else ()):
        yield ("search", "space", name, "choice", index), value


def _variables(path: Path, tree: Tree) -> Iterator[Fault]:
    match tree:
        case dict():
            for key, value in tree.items():
                yield from _variables((*path, key), value)
        case list():
            for position, value in enumerate(tree):
                yield from _variables((*path, position), value)
        case str() if "${" in tree:
            yield Fault(path, f"{show(tree)}: a spec holds no environment variables; they belong to the profile")


def _tasks(tree: Tree) -> Iterator[Fault]:
    named = _at(tree, "tasks")
    for position, name in enumerate(named if isinstance(named, list) else ()):
        if not isinstance(name, str):
            continue
        known = (*tasks.names(), *_mapping(tree, "custom"))
        if name not in known:
            yield Fault(("tasks", position), f"unknown task {show(name)}; {suggest(name, known)}")
        elif name in named[:position]:
            yield Fault(("tasks", position), f"task {name!r} is listed twice")
        else:
            yield from _task_data(tree, position, name)


def _custom(tree: Tree) -> Iterator[Fault]:
    named = _at(tree, "tasks")
    for name, given in _mapping(tree, "custom").items():
        if name in tasks.names():
            yield Fault(
                ("custom", name), f"task {name!r} is in the catalogue already: give yours another name", at_key=True
            )
        elif isinstance(named, list) and name not in named:
            yield Fault(("custom", name), f"task {name!r} is declared and not listed in tasks", at_key=True)
        try:
            task = CustomTask.model_validate_json(json.dumps(given), strict=True)
        except ValidationError:
            continue  # told with the other mistakes of the fields
        for field, wrong in task.faults():
            path: Path = ("custom", name, field) if isinstance(given, dict) and field in given else ("custom", name)
            yield Fault(path, f"custom.{name}.{field}: {wrong}")


def _task_data(tree: Tree, position: int, name: str) -> Iterator[Fault]:
    source = _at(tree, "data", "source") or "hub"
    own = _mapping(tree, "custom")
    if name in own:
        declared = own[name]
        if source == "hub" and isinstance(declared, dict) and declared.get("hub") is None:
            where = "custom.{name}.hub names no data set; give it one, or set data: {{source: path, root: FOLDER}}"
            yield Fault(("tasks", position), where.format(name=name))
        elif source == "embedded":
            yield Fault(("tasks", position), f"task {name!r} is the spec's own: it has no embedded data")
        return
    task = tasks.get(name)
    if source == "embedded" and not task.generate:
        known = ", ".join(other for other in tasks.names() if tasks.get(other).generate)
        yield Fault(("tasks", position), f"task {name!r} has no embedded data; tasks that have: {known}")
    if source == "hub" and task.hub is None:
        hint = "; use data: {source: embedded}" if task.generate else ""
        yield Fault(("tasks", position), f"task {name!r} is not on the hub{hint}")


def _model(path: Path, model_id: Tree) -> Iterator[Fault]:
    if not isinstance(model_id, str) or not model_id:
        return
    if model_id.startswith("embedded:"):
        if model_id not in EMBEDDED:
            yield Fault(path, f"unknown embedded model {show(model_id)}; {suggest(model_id, EMBEDDED)}")
    elif "://" in model_id:
        yield Fault(path, f"{show(model_id)} is a URL; expected a hub id (org/name), a folder or embedded:minilm")
    elif not is_folder(model_id) and not (_HUB_ID.fullmatch(model_id) and ".." not in model_id):
        yield Fault(
            path,
            f"expected a hub id (org/name), a folder (beginning with / or ./ or ../) or embedded:minilm, "
            f"got {show(model_id)}",
        )


def _source(tree: Tree) -> Iterator[Fault]:
    """Only what is on a hub has a source."""
    ids = [value for _, value in _values(tree, None, "model.id") if isinstance(value, str)]
    elsewhere = [each for each in ids if each.startswith("embedded:") or is_folder(each) or "/" not in each]
    for path, source in _values(tree, None, "model.source"):
        if source == "modelscope" and elsewhere:
            yield Fault(path, f"{show(elsewhere[0])} is no model of ModelScope: expected org/name, or another source")


def _data(tree: Tree) -> Iterator[Fault]:
    data = _mapping(tree, "data")
    root = data.get("root")
    if data.get("source") == "path" and root is None:
        yield Fault(("data", "source"), "source 'path' needs data.root, the folder that holds the tasks' folders")
    if root is not None and data.get("source") != "path":
        yield Fault(("data", "root"), "data.root is used with source 'path' only")
    if isinstance(root, str) and _SCHEME.match(root):
        yield Fault(("data", "root"), f"expected a folder, got {show(root)}: rows are not read from a URL or a bucket")


def _space(tree: Tree, methods: tuple[str, ...]) -> Iterator[Fault]:
    space = _mapping(tree, "search", "space")
    for path, given in space.items():
        if wrong := paths.why_not_searched(path, methods):
            yield Fault(("search", "space", path), wrong, at_key=True)
        else:
            yield from _range(path, given, methods)
    trials = _at(tree, "search", "trials")
    if not space and isinstance(trials, int) and trials > 1:
        yield Fault(
            ("search", "trials"),
            f"{trials} trials, but search.space is empty: they would all be the same; search train.seed to repeat one",
        )


def _grid(tree: Tree) -> Iterator[Fault]:
    """A grid is of listed values, and has so many combinations."""
    named = _at(tree, "tasks")
    tasks_here = named if isinstance(named, list) else [None]
    of_grids = [
        place
        for task in tasks_here
        if any(name == "grid" for _, name in _values(tree, task, "search.sampler.name"))
        for place in _values(tree, task, "search.trials")
    ]
    if not of_grids:
        return
    cells = 1
    for path, given in _mapping(tree, "search", "space").items():
        try:
            listed = _RANGE.validate_json(json.dumps(given), strict=True).listed()
        except ValidationError:
            return  # told with the other mistakes of the fields
        if listed is None:
            kind = next(iter(given))
            yield Fault(
                ("search", "space", path, kind),
                f"{path}: a grid has listed values only; use choice (or int_uniform), or another sampler",
            )
            return
        cells *= len(listed)
    if cells > MAX_CELLS:
        yield Fault(("search", "space"), f"a grid of {cells} combinations; at most {MAX_CELLS}", True)
        return
    for place, trials in dict(of_grids).items():
        if isinstance(trials, int) and trials > cells:
            yield Fault(place, f"{trials} trials, but the grid has {cells} combinations: at most {cells}")


def _values(tree: Tree, task: Tree, path: str) -> list[tuple[Path, Tree]]:
    """What a search setting may be in a task's studies, each with its place: an override, the matrix's, the spec's."""
    if isinstance(task, str) and path in _mapping(tree, "overrides", task):
        return [(("overrides", task, path), _at(tree, "overrides", task, path))]
    varied = _at(tree, "matrix", path)
    if isinstance(varied, list):
        return [(("matrix", path, index), value) for index, value in enumerate(varied)]
    own = tuple(path.split("."))
    return [(own, _at(tree, *own))]


def _reruns(tree: Tree) -> Iterator[Fault]:
    if isinstance(_at(tree, "search", "rerun_best"), dict) and "train.seed" in _mapping(tree, "search", "space"):
        yield Fault(
            ("search", "rerun_best"),
            "the best are run again with other seeds, but search.space draws train.seed: drop one",
            at_key=True,
        )


def _range(path: str, given: Tree, methods: tuple[str, ...]) -> Iterator[Fault]:
    at: Path = ("search", "space", path)
    try:
        found = _RANGE.validate_json(json.dumps(given), strict=True)
    except ValidationError:
        return  # told with the other mistakes of the fields
    kind = next(iter(given))
    if isinstance(found, Uniform | LogUniform):
        # Both ends may be whole numbers, and what lies between is not.
        between = paths.why_wrong(path, math.nextafter(*found.interval()), methods)
        if between.startswith("expected a whole number"):
            yield Fault((*at, kind), f"{path} takes whole numbers; use int_uniform or choice")
            return
    wrong = [(index, paths.why_wrong(path, value, methods)) for index, value in enumerate(given[kind])]
    if isinstance(found, IntUniform | Uniform | LogUniform) and wrong[0][1].startswith(
        ("expected text", "expected one of")
    ):
        yield Fault((*at, kind), f"{path} does not take numbers; use choice")
        return
    for index, message in wrong:
        if message:
            yield Fault((*at, kind, index), f"{path}: {message}")


def _overrides(tree: Tree, methods: tuple[str, ...]) -> Iterator[Fault]:
    named = _at(tree, "tasks")
    here = tuple(name for name in tasks.names() if isinstance(named, list) and name in named)
    for task, changes in _mapping(tree, "overrides").items():
        if here and task not in here:
            yield Fault(
                ("overrides", task), f"{show(task)} is not one of this spec's tasks; {suggest(task, here)}", True
            )
        for path, value in changes.items() if isinstance(changes, dict) else ():
            at: Path = ("overrides", task, path)
            yield from _change(at, at, path, value, paths.overridable(methods), methods)
            yield from _first_draw(at, path, value, _mapping(tree, "search", "space"))
            if path in _mapping(tree, "matrix"):
                yield Fault(at, f"{path} is varied by the matrix too: drop one", True)


def _first_draw(at: Path, path: str, value: Tree, space: dict[str, Tree]) -> Iterator[Fault]:
    """A path that is drawn has its own value in the first trial, if that lies in the range."""
    if path not in space:
        return
    try:
        drawn = _RANGE.validate_python(space[path])
    except ValidationError:
        return  # told where the range is
    if not drawn.contains(value):
        yield Fault(at, f"{path} is drawn by search.space, whose range has no {show(value)}: it would have no effect")


def _matrix(tree: Tree, methods: tuple[str, ...]) -> Iterator[Fault]:
    studies = len(_at(tree, "tasks") or ()) if isinstance(_at(tree, "tasks"), list) else 1
    for path, values in _mapping(tree, "matrix").items():
        at: Path = ("matrix", path)
        if not isinstance(values, list):
            continue
        if not 1 <= len(values) <= MAX_STUDIES:
            yield Fault(at, f"expected 1 to {MAX_STUDIES} values, got {len(values)}")
            continue
        studies *= len(values)
        for index, value in enumerate(values):
            if index == 0 or path in paths.matrix_paths(methods):
                yield from _change(at, (*at, index), path, value, paths.matrix_paths(methods), methods)
            if value in values[:index]:
                yield Fault((*at, index), f"{show(value)} is listed twice")
        if path in _mapping(tree, "search", "space"):
            yield Fault(at, f"{path} is drawn by search.space too: drop one", True)
    if studies > MAX_STUDIES:
        yield Fault(("matrix",), f"{studies} studies (tasks x cells); at most {MAX_STUDIES}", True)


def _change(
    key: Path, at: Path, path: str, value: Tree, allowed: tuple[str, ...], methods: tuple[str, ...]
) -> Iterator[Fault]:
    if path not in allowed:
        yield Fault(key, f"unknown path {show(path)}; {suggest(path, allowed)}", at_key=True)
    elif wrong := paths.why_not_everywhere(path, methods):
        yield Fault(key, wrong, at_key=True)
    elif wrong := paths.why_wrong(path, value, methods):
        yield Fault(at, f"{path}: {wrong}")
    elif path == "model.id":
        yield from _model(at, value)


def _registry(tree: Tree) -> Iterator[Fault]:
    template = _at(tree, "registry", "name")
    if not isinstance(template, str) or len(template) > 200:
        return
    at: Path = ("registry", "name")
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        yield Fault(at, f"not a template: {error}; {suggest('', (f'{{{name}}}' for name in PLACEHOLDERS))}")
        return
    for literal, name, form, conversion in pieces:
        if not _MODEL_NAME.fullmatch(literal):
            yield Fault(at, f"expected letters, digits, '.', '_', '-' and placeholders, got {show(template)}")
        if name is not None and (name not in PLACEHOLDERS or form or conversion):
            known = [f"{{{known}}}" for known in PLACEHOLDERS]
            yield Fault(at, f"unknown placeholder {show(f'{{{name}}}')}; {suggest(f'{{{name}}}', known)}")
    several = isinstance(_at(tree, "tasks"), list) and len(_at(tree, "tasks")) > 1
    if several and all(name != "task" for _, name, _, _ in pieces):
        yield Fault(at, f"{dotted(at)} lacks {{task}}: all tasks would share one registered model")
