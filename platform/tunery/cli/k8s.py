"""`platform k8s`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli.doctor import report
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, table
from tunery.errors import InputError, ProfileError
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.profile import Profile

PANEL = Panel.KUBERNETES
ORDER = 10


class Action(StrEnum):
    """What is done with the manifests of deploy/k8s."""

    RENDER = "render"
    APPLY = "apply"
    DOCTOR = "doctor"


def command(
    action: Annotated[Action, typer.Argument(help="What to do.", show_default=False)],
    profile: ProfileOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="apply: let the API server check, and keep nothing.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="apply: take over what others have set otherwise.", show_default=False)
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """What runs on Kubernetes, made of deploy/k8s and the profile's values: look at it, apply it, check it.

    render prints the objects as YAML, and contacts nothing. apply brings them to the API server by server-side apply
    and says what has changed; applying again does no harm. doctor looks at the cluster: access, KubeRay, GPUs, queue,
    storage, secrets, MLflow; each line that is not well says what to do.

    The profile's target is kubernetes. Exit codes: 0 done, 2 a mistake in the profile, or an object is refused, 4
    others have set a field otherwise, 6 a server does not answer, or something that a run needs is missing, 7 kubectl
    or the part 'kubernetes' is not installed. With -o json: render {objects}, apply {applied: [{name, outcome}]},
    doctor {ok, checks: [{name, ok, required, detail, todo}]}.
    """
    from tunery.profile import load_profile

    extras.require("kubernetes")
    if action is not Action.APPLY and (dry_run or force):
        raise InputError("--dry-run and --force belong to apply")
    place = load_profile(profile, Home.from_environment())
    if place.target != "kubernetes":
        raise ProfileError(
            f"profile {place.name!r} has target {place.target!r}: expected 'kubernetes'; --profile names one"
        )
    match action:
        case Action.RENDER:
            _render(place, output)
        case Action.APPLY:
            _apply(place, output, dry_run=dry_run, force=force)
        case Action.DOCTOR:
            from tunery.cli._cluster_checks import all_checks

            report(list(all_checks(place)), output, well="all a run on this cluster needs is there")


def _render(place: Profile, output: Format) -> None:
    from tunery.k8s.render import render, to_yaml

    objects = render(place.kubernetes)
    if output is Format.JSON:
        emit(output, {"objects": objects})
    else:
        print(to_yaml(objects), end="")  # as it is, for kubectl to read


def _apply(place: Profile, output: Format, *, dry_run: bool, force: bool) -> None:
    from tunery.k8s import access
    from tunery.k8s.render import render

    server = access.connect(place.kubernetes, profile=place.name)
    from tunery.k8s.apply import apply, deployed

    objects = deployed(render(place.kubernetes))
    note(f"{len(objects)} objects to {server.url}, namespace {place.kubernetes.namespace}{', as a trial' * dry_run}")
    shown, applied = table("object", "outcome"), []
    for each in apply(server, objects, force=force, dry_run=dry_run):
        applied.append({"name": each.name, "outcome": each.outcome})
        shown.add_row(each.name, Text(each.outcome, "dim" if each.outcome == "unchanged" else "green"))
    emit(output, {"applied": applied}, shown, next_steps=[f"platform k8s doctor --profile {place.name}"])
