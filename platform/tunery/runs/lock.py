"""The lock that the driver of a run holds while it lives."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tunery.errors import ConflictError

LOCK_FD = "TUNERY_LOCK_FD"
"""Environment variable with which a client hands the driver it starts a lock that it already holds: so there is no
moment in which a started run has no driver, however long the driver takes to import what it needs."""


class DriverLock:
    """A file that one process at a time has locked (flock), and that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def held(self) -> bool:
        """Whether a driver lives: the lock goes with its process, however that ended."""
        try:
            with self.path.open("r") as handle:
                return not _try(handle, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def pid(self) -> int | None:
        """The process that holds it, or None where nobody does."""
        if not self.held():
            return None
        with suppress(ValueError):
            return int(self.path.read_text().partition("\n")[0])
        return None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold it. ConflictError where another process does.

        A lock handed over by the process that started this one (`LOCK_FD`) is taken on as it is.
        """
        with self._inherited() or self.take() as handle:
            # Ray's processes must not keep the lock when this one has died.
            os.set_inheritable(handle.fileno(), False)
            self.note(handle, os.getpid())
            try:
                yield
            finally:
                # Closing would not do where a forked child still holds a copy of the handle.
                fcntl.flock(handle, fcntl.LOCK_UN)

    def take(self) -> IO[str]:
        """The handle, locked: for a client that hands it to the driver it starts, and then closes its own.

        ConflictError where a driver holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = self.path.open("a+")
        # Whoever asks `held` holds a shared lock for a moment: only an exclusive one is a driver's.
        while not _try(handle, fcntl.LOCK_EX):
            if not _try(handle, fcntl.LOCK_SH):
                handle.close()
                raise ConflictError(f"run {self.path.parent.name} has a driver already")
            fcntl.flock(handle, fcntl.LOCK_UN)
        return handle

    def note(self, handle: IO[str], pid: int) -> None:
        """Write into the file, whose handle it is, which process drives the run."""
        handle.truncate(0)
        handle.write(f"{pid}\n")
        handle.flush()

    def _inherited(self) -> IO[str] | None:
        number = os.environ.pop(LOCK_FD, "")
        try:
            here, there = os.fstat(int(number)), self.path.stat()
        except (OSError, ValueError):
            return None
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return None
        return os.fdopen(int(number), "a+")


def _try(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
