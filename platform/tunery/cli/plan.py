"""`platform plan`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from storage.models import is_folder
from tunery.cli.options import OfflineOption, OutputOption, ProfileOption, SetOption, SpecArgument, spec_command
from tunery.cli.output import Format, Panel, count_of, emit, table
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.forecast import Forecast
    from tunery.plan import Estimate, Plan, Study
    from tunery.profile import Profile

PANEL = Panel.SPECS
ORDER = 30
RAY_SHARE = 0.7
"""Of the free memory, what a Ray that is started lends to what runs on it: the rest is its object store's."""


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    profile: ProfileOption = None,
    offline: OfflineOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what a spec would run, and stop there.

    Studies and trials, tokens an epoch (without padding), memory beside this machine's, with what would fit where it
    does not, and where it would run. Nothing is contacted; sizes are estimates, from the catalogue of tasks and the
    model's shapes. With --offline: whether what it needs of a hub is on this machine; exit code 3 where it is not.
    """
    from tunery.plan import compile_plan
    from tunery.profile import load_profile
    from tunery.spec import load_spec

    plan = compile_plan(load_spec(spec, overrides=set_ or ()))
    place = load_profile(profile, Home.from_environment())
    if offline:
        from tunery import fetching

        fetching.require(plan, spec_command("fetch", spec, set_, profile))
    foreseen = _forecast(plan, place)
    emit(
        output,
        _document(plan, place, foreseen),
        *_tables(plan, place, foreseen),
        next_steps=[spec_command("submit", spec, set_, profile, offline=offline)],
    )


def _forecast(plan: Plan, profile: Profile) -> Forecast | None:
    """Of the packs as this machine would get them; what a cluster or a device has is not known before it is asked."""
    from tunery.cluster.placement import Node, Room, base_key, place_plan
    from tunery.forecast import forecast
    from tunery.here.share import available_memory

    free = None if profile.ray or plan.spec.resources.gpus_per_worker else available_memory()
    room = Room((Node(cpus=profile.cpus or os.cpu_count() or 1),), memory=int(RAY_SHARE * (free or 0)))
    placement = place_plan(plan, room)
    return forecast(
        plan,
        at_once=placement.at_once,
        packs=placement.to_spare,
        seats=placement.capacity,
        limits={study.name: placement.memory[base_key(study)] for study in plan.studies} if free is not None else None,
    )


def _document(plan: Plan, profile: Profile, foreseen: Forecast | None) -> dict[str, Any]:
    estimates = {estimate.study: estimate.model_dump(exclude={"study"}) for estimate in plan.estimates}
    studies = [
        {**study.model_dump(mode="json"), "default_draw": study.default_draw(), "estimate": estimates[study.name]}
        for study in plan.studies
    ]
    return {
        "run_id": plan.run_id,
        "name": plan.spec.name,
        "trials": plan.trials,
        "studies": studies,
        "resources": plan.spec.resources.model_dump(),
        "pack_bytes": plan.pack_bytes,
        "memory": foreseen.document() if foreseen else None,
        "where": {"profile": profile.name, "target": profile.target, "ray": profile.ray},
        "tracking": {"uri": profile.tracking_uri, "experiment": plan.spec.experiment},
        "spec": plan.spec.normal_form(),
    }


def _tables(plan: Plan, profile: Profile, foreseen: Forecast | None) -> list[RenderableType]:
    numbers = ("trials", "train rows", "eval rows", "tokens/epoch", "tokens at most")
    studies = table("study", *numbers, title=plan.run_id, numbers=numbers)
    for study, estimate in zip(plan.studies, plan.estimates, strict=True):
        counts = (estimate.train_rows, estimate.eval_rows, estimate.tokens_per_epoch, estimate.tokens)
        studies.add_row(study.name, str(study.search.most_trials), *map(count, counts))
    facts = table("", "")
    facts.show_header = False
    for name, value in _facts(plan, profile, foreseen):
        facts.add_row(Text(name, "dim"), value)
    return [studies, Text(), facts, Text()]


def _facts(plan: Plan, profile: Profile, foreseen: Forecast | None) -> list[tuple[str, str]]:
    spec, resources = plan.spec, plan.spec.resources
    device = f"{resources.gpus_per_worker} GPU" if resources.gpus_per_worker else f"{resources.cpus_per_worker} CPU"
    facts = [
        ("total", f"{count_of(len(plan.studies), 'study', 'studies')}, {count_of(plan.trials, 'trial')}"),
        ("model", "; ".join(dict.fromkeys(map(_model, plan.studies, plan.estimates)))),
        ("method", "; ".join(dict.fromkeys(map(_method, plan.studies, plan.estimates)))),
        ("data", spec.data.source + (f" {spec.data.root}" if spec.data.root else "")),
        ("search", f"sampler {spec.search.sampler.name}, pruner {spec.search.pruner.name}"),
        *(("", f"{path}: {found.describe()}") for path, found in spec.search.space.items()),
        (
            "packs",
            f"{resources.packs} x {resources.workers} x {device}, up to {count_of(resources.seats, 'seat')} each",
        ),
        ("memory", _memory(plan)),
        *(("", line) for line in _peak(foreseen, several=len(plan.studies) > 1)),
        ("where", f"{profile.target}, {f'the Ray at {profile.ray}' if profile.ray else 'a Ray started for the run'}"),
        ("profile", profile.name),
        ("tracking", f"{profile.tracking_uri}, experiment {spec.experiment!r}"),
        ("models", ", ".join(dict.fromkeys(study.registry_name for study in plan.studies))),
    ]
    return [*facts, ("", "rows, tokens and memory are estimates; pruning makes the tokens fewer")]


def _model(study: Study, estimate: Estimate) -> str:
    revision = f" @ {study.model.revision}" if study.model.revision else ""
    revision += " on ModelScope" if study.model.source == "modelscope" else ""
    if estimate.base_parameters is not None:
        return f"{study.model.id}{revision}, {count(estimate.base_parameters)} parameters"
    missing = is_folder(study.model.id) and not Path(study.model.id).is_dir()
    return f"{study.model.id}{revision}, {'no such folder on this machine' if missing else 'size unknown'}"


def _method(study: Study, estimate: Estimate) -> str:
    base, trained = estimate.base_parameters, estimate.seat_parameters
    if base is None or trained is None:
        return study.tuner.method
    whole = trained if study.tuner.trains_base else base + trained
    return f"{study.tuner.method}, at most {count(trained)} parameters trained ({trained / whole:.2%})"


def _memory(plan: Plan) -> str:
    if plan.largest is None:
        return "unknown: the model's shapes are not known here"
    study, estimate = plan.largest
    workers = plan.spec.resources.workers
    base = size(estimate.base_bytes) if workers == 1 else f"{size(estimate.base_bytes)} / {workers}"
    kept = f", {size(study.tuner.kept_bytes)} of its states" if study.tuner.kept_bytes else ""
    seats = f"{plan.seats(study)} x {size(estimate.seat_bytes)} a seat"
    return f"{size(plan.pack_bytes)} a worker: base {base}{kept}, {seats}; and activations"


def _peak(foreseen: Forecast | None, *, several: bool) -> Iterator[str]:
    if foreseen is None:
        return
    need, limit = foreseen.need, foreseen.limit
    peak = f"at its peak about {size(need.peak)} with libraries and activations"
    if limit is None:
        yield f"{peak}; what it may take is not known here"
        return
    shared = f" ({count_of(foreseen.at_once, 'pack')} at once here)" if foreseen.at_once > 1 else ""
    whose = f", for {foreseen.study}" if several else ""
    yield f"{peak}, of {size(limit)} that it may take{shared}{whose}"
    if not foreseen.fits:
        yield f"this does not fit: with the smallest forwards it takes {size(need.least)}; by estimate these would fit"
    for change in foreseen.changes:
        yield f"  {change.what}: {size(change.bytes)}; {change.cost}"


def count(number: int | None) -> str:
    """A count for people: 1,234 in full, 22.7M rounded."""
    if number is None:
        return "unknown"
    for unit, scale in (("B", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{number / scale:.3g}{unit}"
    return f"{number:,}"


def size(number: int | None) -> str:
    """Bytes for people: 86.6 MiB."""
    if number is None:
        return "unknown"
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
