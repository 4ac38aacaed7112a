"""A part of the cluster: a server of this machine, started, asked how it is, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunery.errors import UnreachableError
from tunery.here import processes
from tunery.here.processes import Remembered

SAY_S = 10.0
"""Between two lines about a part that is waited for."""
_LOOK_S = 0.25
_LAST_LINES = 15

Say = Callable[[str], None]
"""Tells a person what goes on."""


@dataclass(frozen=True)
class Launch:
    """How a part's main process is started."""

    command: Sequence[str]
    """No secret is in it: all users of the machine may read it."""
    environment: Mapping[str, str]
    folder: Path
    """That it works in."""
    user: str | None = None
    """Of the system; None: who gives the command."""


class Part(Protocol):
    """One server. What it needs to know is given when it is made."""

    name: str
    title: str
    """For people."""
    address: str
    """Where it is reached."""
    log: Path
    start_s: float
    """Seconds until it must be well."""
    starts: int
    """Attempts, of one that ends by itself at its start."""
    end_signal: signal.Signals
    """What asks it to end."""
    end_s: float
    """Seconds it has for that."""

    def prepare(self) -> None:
        """Make what it works on, where that is not there yet. UnreachableError."""

    def launch(self) -> Launch:
        """How it is started."""

    def trouble(self) -> str:
        """What is wrong with it, asked of itself; empty where it is well. Takes seconds at most."""


def start(part: Part, mark: str) -> Remembered:
    """Start a part in a session of its own, and return at once. UnreachableError where there is no such program."""
    part.prepare()
    launch = part.launch()
    part.log.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(part.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        try:
            process = subprocess.Popen(
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=launch.folder,
                env=processes.marked(launch.environment, mark),
                start_new_session=True,
                user=launch.user,
                group=launch.user,
                extra_groups=() if launch.user else None,
            )
        except OSError as error:
            raise UnreachableError(f"{part.title} cannot be started: {error}") from error
    return processes.remember(process.pid)


class EndedAtStartError(UnreachableError):
    """A part has ended by itself before it was well."""


def wait(part: Part, process: Remembered, say: Say) -> None:
    """Until it is well, telling what is waited for. UnreachableError, with the log's end, where that does not come."""
    began = told = time.monotonic()
    while trouble := part.trouble():
        now = time.monotonic()
        if not process.lives:
            raise EndedAtStartError(
                f"{part.title} has ended at its start; the end of {part.log}:\n{last_words(part.log)}"
            )
        if now - began > part.start_s:
            raise UnreachableError(
                f"{part.title} is not well after {part.start_s:.0f} s: {trouble}; "
                f"the end of {part.log}:\n{last_words(part.log)}"
            )
        if now - told >= SAY_S:
            told = now
            say(f"still waiting for {part.title} ({now - began:.0f} s of {part.start_s:.0f} s): {trouble}")
        time.sleep(_LOOK_S)


def end(part: Part, process: Remembered | None, mark: str, *, at_once: bool = False) -> bool:
    """End all processes of a part; whether there were any. UnreachableError where one stays."""
    sign, limit_s = (signal.SIGKILL, 0.0) if at_once else (part.end_signal, part.end_s)
    try:
        return processes.end(process, mark, sign=sign, limit_s=limit_s)
    except OSError as error:
        raise UnreachableError(f"{part.title}: {error}; see {part.log}") from error


def last_words(log: Path) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])


def inherited() -> dict[str, str]:
    """This process's environment for a server, without what would lead it, or those it talks to, elsewhere."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "MLFLOW_", "PG", "TUNERY_")) and name not in _RAYS
    }


_RAYS = frozenset({"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH",
                   "RAY_JOB_HEADERS", "RAY_NAMESPACE", "RAY_TMPDIR"})  # fmt: skip
