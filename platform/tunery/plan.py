"""From a spec to a plan: the studies, each with its full configuration, and what they will take."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

import tuners
from tuners.config import Frozen, TrainConfig
from tuners.needs import QUANTISED_MOMENTS
from tunery import tasks
from tunery.errors import Mistake, SpecError
from tunery.spec import paths
from tunery.spec.base_model import Shape, shape_of
from tunery.spec.check import check
from tunery.spec.explain import explain, show
from tunery.spec.space import Value
from tunery.spec.tree import Tree, dotted
from tunery.spec.types import AnyTuner, DataSpec, ModelSpec, SearchSpec, Spec
from tunery.tasks.custom import CustomTask

_Model = TypeVar("_Model", bound=Frozen)
_LONGEST_SLUG = 60
_WEIGHT_AND_GRADIENT = 8
"""Bytes a trained parameter, in float32."""
_MOMENTS = 8
"""AdamW's two; of those in 8 bits the few that stay in float32 are not told apart."""


class TrialConfig(Frozen):
    """All of one trial's settings."""

    tuner: AnyTuner
    train: TrainConfig


class Study(Frozen):
    """One task in one matrix cell: its own search, its own best, its own registered model."""

    name: str
    """The task's name, or `<task>-<cell>`; unique in the plan and fit for a folder's name."""
    task: str
    custom: CustomTask | None = None
    """The task, where the spec declares it."""
    cell: Mapping[str, Value]
    """Matrix path -> this study's value (a list's items joined by '+')."""
    model: ModelSpec
    data: DataSpec
    tuner: AnyTuner
    train: TrainConfig
    search: SearchSpec
    registry_name: str
    alias: str
    min_gain: float

    @property
    def definition(self) -> tasks.Task:
        """The task."""
        return self.custom.task(self.task) if self.custom else tasks.get(self.task)

    def trial(self, draw: Mapping[str, Value]) -> TrialConfig:
        """The study's configuration with the drawn values in place, validated again. SpecError where one is wrong."""
        plain = paths.overlay(self.model_dump(mode="json", include={"tuner", "train"}), draw)
        return _validated(TrialConfig, plain, what=f"a trial of {self.name}")

    def default_draw(self) -> dict[str, Value]:
        """The study's own values of the drawn paths, where they lie in the range."""
        own: dict[str, Tree] = self.model_dump(mode="json", include={"tuner", "train"})
        values = {path: own[path.split(".")[0]].get(path.split(".")[1]) for path in self.search.space}
        return {path: value for path, value in values.items() if self.search.space[path].contains(value)}


class Estimate(Frozen):
    """What a study will take. None: unknown."""

    study: str
    train_rows: int | None
    eval_rows: int | None
    tokens_per_epoch: int | None
    """Training tokens, without padding; from the catalogue's mean length of an example."""
    tokens: int | None
    """Training tokens of all trials if none is pruned and each draws the most epochs: an upper bound."""
    base_parameters: int | None
    base_bytes: int | None
    """The frozen base in memory, once a pack; its workers share it."""
    seat_parameters: int | None
    """What a trial of the largest rank trains, its head included."""
    seat_bytes: int | None
    """Adapter and head of the largest rank with gradients and AdamW's state, a seat; activations not included."""


class Begin(Frozen):
    """A checkpoint that all trials begin with."""

    checkpoint: str
    """Where it was found: RUN/STUDY/TRIAL@STEP, or a folder. The run has a copy."""
    digest: str
    """Of its content."""


class Plan(Frozen):
    """What will be run. `Plan.model_validate_json(plan.model_dump_json()) == plan`."""

    run_id: str
    spec: Spec
    studies: tuple[Study, ...]
    estimates: tuple[Estimate, ...]
    """One a study, in the same order."""
    begin: Begin | None = None

    @property
    def trials(self) -> int:
        """Of all studies, at most."""
        return sum(study.search.most_trials for study in self.studies)

    @property
    def largest(self) -> tuple[Study, Estimate] | None:
        """Of the pack that takes most, the study that takes most of it; None where some are unknown."""
        sizes = [self._pack_bytes(*each) for each in zip(self.studies, self.estimates, strict=True)]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        place = known.index(max(known))
        return self.studies[place], self.estimates[place]

    @property
    def pack_bytes(self) -> int | None:
        """A worker's share of the base, what is kept of its states, and as many of the largest seats as a pack has, of
        the pack that takes most; None: unknown."""
        return self._pack_bytes(*self.largest) if self.largest else None

    def _pack_bytes(self, study: Study, estimate: Estimate) -> int | None:
        if estimate.base_bytes is None or estimate.seat_bytes is None:
            return None
        share = -(-estimate.base_bytes // self.spec.resources.workers)
        return share + study.tuner.kept_bytes + self.seats(study) * estimate.seat_bytes

    def only(self, studies: Collection[str]) -> Plan:
        """The plan of these studies alone."""
        both = zip(self.studies, self.estimates, strict=True)
        kept = [(study, estimate) for study, estimate in both if study.name in studies]
        return self.model_copy(
            update={"studies": tuple(study for study, _ in kept), "estimates": tuple(each for _, each in kept)}
        )

    def seats(self, study: Study) -> int:
        """Most trials of a study that a pack trains at once."""
        return 1 if study.tuner.trains_base else self.spec.resources.seats


def compile_plan(spec: Spec) -> Plan:
    """The plan of a spec. SpecError where a range's end or a combination cannot be trained."""
    # `load_spec` has done this with the lines of the file; a spec that was made in Python has none.
    faults = [Mistake(f"spec {spec.name!r}", 0, 0, fault.message) for fault in check(spec.normal_form())]
    if faults:
        raise SpecError(faults)
    studies = tuple(_studies(spec))
    estimates = tuple(estimate(study, gpu=spec.resources.gpus_per_worker > 0) for study in studies)
    return Plan(run_id=run_id(spec), spec=spec, studies=studies, estimates=estimates)


def run_id(spec: Spec) -> str:
    """The same for the same spec: the name and the first letters of the digest."""
    return f"{spec.name}-{spec.digest()[:8]}"


def _studies(spec: Spec) -> Iterator[Study]:
    plain = spec.normal_form()
    taken: set[str] = set()
    for cell in _cells(spec):
        slug = _slug(cell, taken)
        for task in spec.tasks:
            name = f"{task}-{slug}" if slug else task
            given = {f"train.{name}": value for name, value in plain["train"].items()}
            own: dict[str, Tree] = {**cell, **spec.overrides.get(task, {})}
            method = str(own.get("tuner.method", plain["tuner"]["method"]))
            sections = {key: plain[key] for key in ("model", "data", "tuner", "search")}
            changes: dict[str, Tree] = {**_defaults(spec, task, method), **given, **own}
            # The method first: a change of method decides which fields the others can stand in.
            ordered = dict(sorted(changes.items(), key=lambda change: change[0] != "tuner.method"))
            configured = paths.overlay(sections, ordered)
            described = {
                "name": name,
                "task": task,
                "custom": plain["custom"].get(task),
                "cell": {path: _word(value) for path, value in cell.items()},
                "registry_name": _registry_name(spec, task, slug, method),
                "alias": spec.registry.alias,
                "min_gain": spec.registry.min_gain,
            }
            yield _validated(Study, {"train": {}, **configured, **described}, what=f"study {name}")


def _defaults(spec: Spec, task: str, method: str) -> dict[str, Tree]:
    """Of fields that a spec leaves out: the method's, and before them the task's."""
    known = {} if task in spec.custom else tasks.get(task).defaults
    of_task = {path: value for path, value in known.items() if path.startswith("train.")}
    return {f"train.{name}": value for name, value in tuners.config_class(method).train_defaults.items()} | of_task


def _cells(spec: Spec) -> Iterator[dict[str, Tree]]:
    for values in itertools.product(*spec.matrix.values()):
        yield dict(zip(spec.matrix, values, strict=True))


def _word(value: Tree) -> Value:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else value


def _slug(cell: Mapping[str, Tree], taken: set[str]) -> str:
    """`tuner.rank: 4` -> `rank-4`; short, fit for folders and model names, and different for different cells."""
    if not cell:
        return ""
    words = "-".join(f"{path.rpartition('.')[2]}-{_word(value)}" for path, value in cell.items())
    slug = re.sub(r"[^a-z0-9._]+", "-", words.lower().replace("_", "-")).strip("-.")
    if len(slug) > _LONGEST_SLUG or slug in taken:
        digest = hashlib.sha256(json.dumps(cell, sort_keys=True, default=list).encode()).hexdigest()[:8]
        slug = f"{slug[: _LONGEST_SLUG - 9].rstrip('-.')}-{digest}"
    taken.add(slug)
    return slug


def _registry_name(spec: Spec, task: str, slug: str, method: str) -> str:
    name = spec.registry.name.format(name=spec.name, task=task, cell=slug, method=method)
    # Without a matrix {cell} is empty, and must not leave its dash behind.
    return re.sub(r"-{2,}", "-", name).strip("-")


def _validated(cls: type[_Model], plain: Mapping[str, Any], *, what: str) -> _Model:
    try:
        return cls.model_validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        raise SpecError([_mistake(what, plain, each) for each in error.errors(include_url=False)]) from None


def _mistake(what: str, plain: Mapping[str, Any], error: Mapping[str, Any]) -> Mistake:
    location = [part for part in error["loc"] if part not in paths.known_methods()]
    if error["type"] == "extra_forbidden":
        return Mistake(what, 0, 0, f"unknown path {dotted(location)!r}")
    value: Any = plain
    for part in location:
        value = value[part] if isinstance(value, dict) and part in value else value
    return Mistake(what, 0, 0, f"{dotted(location)}: {explain(error, value)}" if location else show(error["msg"]))


def estimate(study: Study, *, gpu: bool) -> Estimate:
    """What a study will take, as far as it can be known without contacting anything."""
    task = study.definition
    train_rows = _bounded(task.rows.get(task.train_split), study.data.max_train)
    eval_rows = [_bounded(task.rows.get(split.name), study.data.max_eval) for split in task.eval_splits]
    known = [rows for rows in eval_rows if rows is not None]
    tokens = round(train_rows * min(task.tokens_per_example, study.train.max_length)) if train_rows else None
    epochs = _largest(study, "train.epochs", study.train.epochs)
    shape = shape_of(study.model.id)
    trained = _seat_parameters(study, shape, outputs=max(1, len(task.labels))) if shape else None
    a_parameter = _WEIGHT_AND_GRADIENT + (QUANTISED_MOMENTS if study.train.quantises_moments else _MOMENTS)
    return Estimate(
        study=study.name,
        train_rows=train_rows,
        eval_rows=sum(known) if known else None,
        tokens_per_epoch=tokens,
        tokens=round(tokens * epochs * study.search.most_trials) if tokens else None,
        base_parameters=shape.parameters if shape else None,
        base_bytes=_base_bytes(study, shape, gpu=gpu) if shape else None,
        seat_parameters=trained,
        seat_bytes=None if trained is None else round(trained * a_parameter),
    )


def _bounded(rows: int | None, most: int | None) -> int | None:
    return min(rows, most) if rows is not None and most is not None else rows if rows is not None else most


def _largest(study: Study, path: str, own: float) -> float:
    found = study.search.space.get(path)
    numbers = [end for end in found.ends() if isinstance(end, int | float)] if found else []
    return max(numbers, default=own)


def _base_bytes(study: Study, shape: Shape, *, gpu: bool) -> int:
    # A CPU may turn out to compute in bfloat16; what is planned is what fits in any case.
    wide = study.model.dtype == "float32" or (study.model.dtype == "auto" and not gpu)
    width = 4 if wide else 2
    quantisation = study.tuner.quantisation
    if quantisation == "none" or study.tuner.dequantised_once:
        return shape.parameters * width
    # Half a byte a weight, and a scale for each 64: a float32, or one byte when the scales are quantised too.
    packed = 0.5 + (1 if quantisation == "nf4-double" else 4) / 64
    return round(shape.linear_parameters * packed) + (shape.parameters - shape.linear_parameters) * width


def _seat_parameters(study: Study, shape: Shape, *, outputs: int) -> int | None:
    if study.tuner.trains_base:
        return shape.parameters + outputs * (shape.hidden + 1)
    if study.tuner.trains_beside:
        side = study.tuner.side_parameters(layers=shape.layers, hidden=shape.hidden, inner=shape.inner)
        return side + outputs * (shape.hidden + 1)
    rank = getattr(study.tuner, "rank", None)
    if rank is None:
        return None
    linears = shape.linears()
    targets = getattr(study.tuner, "target_modules", ()) or shape.default_targets
    targets = tuple(linears) if isinstance(targets, str) else targets
    ends = [end for name in targets for end in linears.get(name, ())]
    adapter = round(_largest(study, "tuner.rank", rank)) * shape.layers * sum(i + o for i, o in ends)
    return adapter + outputs * (shape.hidden + 1)
