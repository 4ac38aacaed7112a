"""Processes that outlive the command which started them: known again, and ended, by their own ids alone.

A number is given to another process when the first has gone, so what is remembered is the number, the moment it was
started at, and the boot of the machine that this moment is counted from. What a process starts has inherited a
variable, `MARK`, with which it is found when the one that started it is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

MARK = "TUNERY_CLUSTER_PART"
"""Environment variable: the cluster's id, a slash, and the part's name."""
KILL_S = 15.0
"""For a process to be gone after SIGKILL."""
_LOOK_S = 0.05
_PROC = Path("/proc")


class Remembered(BaseModel):
    """One process."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str
    """The boot's id and the clock ticks from it to the process's start."""

    @property
    def lives(self) -> bool:
        """Whether it is there: neither gone, nor replaced by another of its number, nor dead and not yet buried."""
        return _start(self.pid) == self.started


def remember(pid: int) -> Remembered:
    """A process that is there, or that has ended and nobody has waited for. ProcessLookupError where it is not."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(pid)
    return Remembered(pid=pid, started=found[0])


def end(main: Remembered | None, mark: str, *, sign: signal.Signals, limit_s: float) -> bool:
    """End a part: `sign` to its main process, and when that is gone, or after `limit_s`, SIGKILL to all that is left.

    Whether there was anything.

    OSError where something is still there after all that.
    """
    known = _family(main, mark)
    found = bool(known)
    if main is not None and main.lives:
        _signal([main], sign)
        deadline = time.monotonic() + limit_s
        while main.lives and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    deadline = time.monotonic() + KILL_S
    while left := _living(known | _family(main, mark)):
        known |= left
        if time.monotonic() > deadline:
            raise OSError(f"processes {', '.join(str(each.pid) for each in left)} do not end")
        _signal(left, signal.SIGKILL)
        time.sleep(_LOOK_S)
    return found


def _family(main: Remembered | None, mark: str) -> set[Remembered]:
    """A process, those with the mark, all in the sessions of these, and all that they have started.

    Some processes write their title over their environment: they are in the session, or in the tree.
    """
    own = set(_marked(mark)) | ({main} if main is not None and main.lives else set())
    sessions = {_session(each.pid) for each in own} - {None}
    members = own | {each for each in _all() if _session(each.pid) in sessions}
    for each in tuple(members):
        try:
            children = psutil.Process(each.pid).children(recursive=True)
        except psutil.Error:
            continue  # gone meanwhile
        members |= set(_remembered(child.pid for child in children))
    return {each for each in members if each.pid != os.getpid()}


def _marked(mark: str) -> list[Remembered]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for each in _all():
        try:
            if wanted in (_PROC / str(each.pid) / "environ").read_bytes().split(b"\0"):
                found.append(each)
        except OSError:
            continue  # gone, or another user's
    return found


def _all() -> list[Remembered]:
    return _remembered(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _remembered(pids: Iterable[int]) -> list[Remembered]:
    return [Remembered(pid=pid, started=started) for pid in pids if (started := _start(pid)) is not None]


def _living(processes: Iterable[Remembered]) -> set[Remembered]:
    return {each for each in processes if each.lives}


def _signal(processes: Iterable[Remembered], sign: signal.Signals) -> None:
    for each in processes:
        if each.lives:
            try:
                os.kill(each.pid, sign)
            except ProcessLookupError:
                continue


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """Of one that lives."""
    found = _stat(pid)
    return found[0] if found is not None and found[1] not in ("Z", "X") else None


def _stat(pid: int) -> tuple[str, str] | None:
    """When it was started, as it is remembered, and the letter of its state."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; fields are counted from its end.
    fields = stat.rpartition(")")[2].split()
    return f"{boot}/{fields[19]}", fields[0]


def marked(environment: Mapping[str, str], mark: str) -> dict[str, str]:
    """An environment for a process that is to be found again."""
    return {**environment, MARK: mark}
