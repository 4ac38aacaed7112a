"""`platform plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from storage.models import is_folder
from tunery.cli.options import OfflineOption, OutputOption, ProfileOption, SetOption, SpecArgument, spec_command
from tunery.cli.output import Format, Panel, count_of, emit, table
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.plan import Estimate, Plan, Study
    from tunery.profile import Profile

PANEL = Panel.SPECS
ORDER = 30


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    profile: ProfileOption = None,
    offline: OfflineOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what a spec would run, and stop there.

    Studies and trials, tokens an epoch (without padding), memory, and where it would run. Nothing is contacted; sizes
    are estimates, from the catalogue of tasks and the model's shapes. With --offline: whether what it needs of a hub
    is on this machine; exit code 3 where it is not.
    """
    from tunery.plan import compile_plan
    from tunery.profile import load_profile
    from tunery.spec import load_spec

    plan = compile_plan(load_spec(spec, overrides=set_ or ()))
    place = load_profile(profile, Home.from_environment())
    if offline:
        from tunery import fetching

        fetching.require(plan, spec_command("fetch", spec, set_, profile))
    emit(
        output,
        _document(plan, place),
        *_tables(plan, place),
        next_steps=[spec_command("submit", spec, set_, profile, offline=offline)],
    )


def _document(plan: Plan, profile: Profile) -> dict[str, Any]:
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
        "where": {"profile": profile.name, "target": profile.target, "ray": profile.ray},
        "tracking": {"uri": profile.tracking_uri, "experiment": plan.spec.experiment},
        "spec": plan.spec.normal_form(),
    }


def _tables(plan: Plan, profile: Profile) -> list[RenderableType]:
    numbers = ("trials", "train rows", "eval rows", "tokens/epoch", "tokens at most")
    studies = table("study", *numbers, title=plan.run_id, numbers=numbers)
    for study, estimate in zip(plan.studies, plan.estimates, strict=True):
        counts = (estimate.train_rows, estimate.eval_rows, estimate.tokens_per_epoch, estimate.tokens)
        studies.add_row(study.name, str(study.search.most_trials), *map(count, counts))
    facts = table("", "")
    facts.show_header = False
    for name, value in _facts(plan, profile):
        facts.add_row(Text(name, "dim"), value)
    return [studies, Text(), facts, Text()]


def _facts(plan: Plan, profile: Profile) -> list[tuple[str, str]]:
    spec, resources = plan.spec, plan.spec.resources
    device = f"{resources.gpus_per_worker} GPU" if resources.gpus_per_worker else f"{resources.cpus_per_worker} CPU"
    facts = [
        ("total", f"{count_of(len(plan.studies), 'study', 'studies')}, {count_of(plan.trials, 'trial')}"),
        ("model", "; ".join(dict.fromkeys(map(_model, plan.studies, plan.estimates)))),
        ("method", ", ".join(dict.fromkeys(study.tuner.method for study in plan.studies))),
        ("data", spec.data.source + (f" {spec.data.root}" if spec.data.root else "")),
        ("search", f"sampler {spec.search.sampler.name}, pruner {spec.search.pruner.name}"),
        *(("", f"{path}: {found.describe()}") for path, found in spec.search.space.items()),
        (
            "packs",
            f"{resources.packs} x {resources.workers} x {device}, up to {count_of(resources.seats, 'seat')} each",
        ),
        ("memory", _memory(plan)),
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


def _memory(plan: Plan) -> str:
    bases = {estimate.base_bytes for estimate in plan.estimates}
    seats = {estimate.seat_bytes for estimate in plan.estimates}
    if plan.pack_bytes is None or None in bases | seats:
        return "unknown: the model's shapes are not known here"
    base, seat = (size(max(value for value in values if value is not None)) for values in (bases, seats))
    workers = plan.spec.resources.workers
    base = base if workers == 1 else f"{base} / {workers}"
    return (
        f"{size(plan.pack_bytes)} a worker: base {base}, {plan.spec.resources.seats} x {seat} a seat; and activations"
    )


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
