"""Where plans are sent: one module a target, each with `connect(profile, home) -> Client`.

To add a target, add a file here; a profile names it with `target = "<file>"`. A module whose name begins with an
underscore is a helper of the others. A client imports nothing heavy: a laptop submits with it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

from tunery.begin import Found
from tunery.errors import ProfileError
from tunery.home import Home
from tunery.plan import Plan
from tunery.runs import RunFolder, RunState

if TYPE_CHECKING:
    from tunery.profile import Profile

Outcome = Literal["started", "resumed", "attached", "finished", "ended"]
"""What sending a plan came to: a new run, an interrupted one that goes on, one that was under way, one that has
finished before, or one that has failed or was stopped and goes on only when asked to."""

STOP_GRACE_S = 120.0
"""Seconds a driver has to end its trials, keep their checkpoints and let Ray go, before its processes are ended."""


@dataclass(frozen=True)
class JobHandle:
    """A run that was sent, or found."""

    run_id: str
    outcome: Outcome


@dataclass(frozen=True)
class Preview:
    """What would be sent, as it would be sent; a secret is named and not shown."""

    target: str
    to: str
    """The folder of the run, or the request's method and address."""
    content: Mapping[str, object]
    """The command and its environment, or the request's body; JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request, beside those that every request has."""
    manifest: bool = False
    """The content is an object for Kubernetes, to be shown as kubectl takes it."""


class Client(Protocol):
    """A place where plans run. `run` is always a run's id; `find` makes one out of what a user typed."""

    def send(self, plan: Plan, *, offline: bool = False, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        """Start the plan's run, or find the one there is, and return at once. `offline`: it is to ask no hub.

        `fresh`: start another one, with an id of its own, and leave those that are there alone. `begin`: a checkpoint
        that all trials begin with; a run that began with the same one is found. ConflictError where a run of that name
        has another content (the message shows the difference), or one of the plan's is under way and another would
        start; InputError where the checkpoint does not fit.
        """

    def preview(self, plan: Plan, *, offline: bool = False) -> Preview:
        """What `send` would send for a plan that has no run yet; contacts nothing and writes nothing."""

    def find(self, text: str) -> str:
        """The id of the run with this id, name or beginning of an id. NotFoundError; InputError where several fit."""

    def runs(self) -> tuple[RunState, ...]:
        """The states of all runs, the newest first."""

    def state(self, run: str) -> RunState:
        """The run's state as it is: never `running` when nothing drives it."""

    def plan(self, run: str) -> Plan:
        """The plan it runs by. ConflictError where another version of tunery has written it and it cannot be read."""

    def folder(self, run: str) -> RunFolder:
        """The run's folder; of one that runs elsewhere, a copy of its record that is made now, with room for a report.

        NotFoundError where nothing of it has come here yet.
        """

    def watch(self, run: str) -> Iterator[RunState]:
        """The state, again and again in short intervals, until the run has ended; the last one is the end."""

    def resume(self, run: str, *, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        """Let a run that was stopped, interrupted or has failed go on.

        `fresh`: start its plan over, as `send` does. `begin`, of one of its own trials that has not ended: that trial
        goes on from there, and its newer checkpoints are set aside; together with `fresh`: as in `send`.
        """

    def checkpoint(self, text: str, *, of: str = "") -> Found:
        """The checkpoint RUN[/STUDY]/TRIAL[@STEP], or the one in a folder; `of`: the run, where the name may lack it.

        NotFoundError where there is none, InputError where it is damaged.
        """

    def stop(self, run: str, *, grace_s: float = STOP_GRACE_S) -> RunState:
        """Ask the run to stop and wait until it has. After `grace_s` its processes are ended. RunError if they stay."""

    def log(
        self, run: str, *, study: str | None = None, trial: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Lines of the driver's log, or of one trial's, without their ends; with `follow` until the run has ended.

        NotFoundError where there is no such trial, InputError where `study` is needed to tell.
        """


class _Target(Protocol):
    def connect(self, profile: Profile, home: Home) -> Client: ...


def names() -> tuple[str, ...]:
    """The targets there are, without importing them."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def client_for(profile: Profile, home: Home) -> Client:
    """The client of a profile's target. ProfileError where there is no such target."""
    if profile.target not in names():
        raise ProfileError(f"unknown target {profile.target!r} in the profile; known: {', '.join(names())}")
    # Modules are the targets: an import cannot be checked against a protocol, so the contract test does it.
    target = cast("_Target", importlib.import_module(f"tunery.client.{profile.target}"))
    return target.connect(profile, home)
