"""`platform submit`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli._place import found, here
from tunery.cli.options import (
    FreshOption,
    FromOption,
    OfflineOption,
    OutputOption,
    ProfileOption,
    SetOption,
    SpecArgument,
    spec_command,
)
from tunery.cli.output import Format, Panel, emit, note, table
from tunery.errors import InputError

if TYPE_CHECKING:
    from tunery.client import Preview
    from tunery.plan import Plan
    from tunery.profile import Profile

PANEL = Panel.RUNS
ORDER = 10
_SHOWN = 300
"""Characters of a value in a table: a plan as it travels is no reading."""


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    profile: ProfileOption = None,
    offline: OfflineOption = False,
    fresh: FreshOption = False,
    from_: FromOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and contact nothing.", show_default=False)
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start the run and return at once.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Run a spec: train its trials, register the best adapters, promote them if they gain.

    Shows the run until it has ended; Ctrl-C asks whether to stop it or to let it go on. Submitting the same spec again
    finds its run: it is watched if it is under way, goes on if it was interrupted, and is shown if it has finished.
    --fresh starts it over in a new run. With --from all trials begin with a checkpoint's weights, and one of the
    checkpoint's own configuration goes on at its step.

    --dry-run prints exactly what would be sent for a spec that has no run yet, and where to.

    With --offline it uses only what `platform fetch` has brought, also when it goes on later.

    Exit codes: 0 finished, 2 a mistake in the spec or a checkpoint that does not fit, 3 no such checkpoint, or offline
    and not fetched, 4 a run of that name has another content or one of this spec is under way, 5 failed, 6 MLflow does
    not answer, 130 stopped or detached with Ctrl-C.
    """
    from tunery import fetching
    from tunery.cli._watch import conclude, watch
    from tunery.plan import compile_plan
    from tunery.report import result
    from tunery.spec import load_spec

    plan = compile_plan(load_spec(spec, overrides=set_ or ()))
    place, client = here(profile)
    if dry_run:
        if fresh or from_:
            raise InputError(
                "--dry-run shows what a spec without a run sends: --fresh and --from look at runs there are"
            )
        _show(client.preview(plan, offline=offline), plan, place, output)
        return
    _check(plan, place)
    if offline and place.target == "local":  # what a cluster has fetched is seen there
        fetching.require(plan, spec_command("fetch", spec, set_, profile))
    begin = found(client, from_) if from_ else None
    handle = client.send(plan, offline=offline, fresh=fresh, begin=begin)
    run = handle.run_id
    note(_in_a_line(run, plan, place))
    match handle.outcome:
        case "started":
            if begin is not None:
                note(f"trials begin with the weights of {begin.name}")
        case "attached":
            note("this spec's run is under way already: showing it")
        case "resumed":
            note("this spec's run was interrupted: it goes on where it was")
        case "finished":
            note("this spec's run has finished before: nothing was started; --fresh starts it over")
            conclude(client, client.state(run), output, profile=profile)
        case "ended":
            state = client.state(run)
            note(f"this spec's run has {'failed' if state.status == 'failed' else 'been stopped'} before: "
                 f"nothing was started, `platform resume {run}` lets it go on, --fresh starts it over")  # fmt: skip
            conclude(client, state, output, profile=profile)
    if not detach:
        watch(client, run, output, profile=profile)
    state = client.state(run)
    emit(output, result.document(state), next_steps=result.next_steps(state, profile=profile))


def _show(preview: Preview, plan: Plan, place: Profile, output: Format) -> None:
    """What would be sent: in JSON as it is, with the plan to be read beside it; in the table its parts."""
    from tunery.report.words import count

    document = {
        "run_id": plan.run_id,
        "profile": place.name,
        "target": preview.target,
        "to": preview.to,
        "headers": dict(preview.headers),
        "content": dict(preview.content),
        "plan": plan,
    }
    if preview.manifest and output is Format.TABLE:
        from tunery.k8s.render import to_yaml

        note(f"{preview.to}\n{plan.run_id}: {count(len(plan.studies), 'study')}, {count(plan.trials, 'trial')}")
        print(to_yaml([dict(preview.content)]), end="")  # as it is, for kubectl to read
        return
    shown = table("what", "value")
    for name, value in {
        "run": f"{plan.run_id}: {count(len(plan.studies), 'study')}, {count(plan.trials, 'trial')}",
        "profile": f"{place.name}, target {preview.target}",
        "to": preview.to,
        **{f"header {name}": value for name, value in preview.headers.items()},
        **dict(_flat(preview.content)),
    }.items():
        long = len(value) > _SHOWN
        shown.add_row(
            name,
            Text(
                f"{value[:60]}... ({len(value)} characters; -o json has them all)" if long else value, overflow="fold"
            ),
        )
    emit(output, document, shown)


def _flat(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path -> value as text; a command as it is typed."""
    for name, value in content.items():
        match value:
            case Mapping():
                yield from _flat(value, f"{prefix}{name}.")
            case list() | tuple():
                yield f"{prefix}{name}", shlex.join(map(str, value))
            case _:
                yield f"{prefix}{name}", str(value)


def _check(plan: Plan, place: Profile) -> None:
    """What would make the run fail in a minute is said now."""
    from tunery.client._reach import check_server, is_server
    from tunery.client._trust import Trust

    if place.target == "local":
        extras.require("cluster")
        if any(study.model.id.startswith("embedded:") for study in plan.studies):
            extras.require("quickstart")
    if is_server(place.tracking_uri):
        check_server(place.tracking_uri, Trust.of(place))


def _in_a_line(run: str, plan: Plan, place: Profile) -> str:
    from tunery.report.words import count

    trials = plan.trials
    models = ", ".join(dict.fromkeys(study.model.id for study in plan.studies))
    methods = ", ".join(dict.fromkeys(study.tuner.method for study in plan.studies))
    studies = count(len(plan.studies), "study")
    return f"{run}: {studies}, {count(trials, 'trial')} of {methods} on {models}; profile {place.name}"
