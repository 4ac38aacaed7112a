"""Copies of models' folders on a node's own disk, where the folders themselves lie behind a network.

<root>/<name>-<digest>/          a copy, whole or not there
<root>/<name>-<digest>.part/     one that is being made
<root>/<name>-<digest>.lock      held (flock) by all who read the copy, and alone by who makes or removes it
<root>/making.lock               held by who makes one: two that are made at once would take the same room

Nothing else that lies in the root is touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from storage.errors import StorageError

_LOCK = ".lock"
_OURS = re.compile(r".*-[0-9a-f]{16}(\.part)?")


@dataclass(frozen=True)
class NearCopy:
    """A copy that is not removed as long as this is held, or its process lives."""

    folder: Path
    _held: IO[str]

    def close(self) -> None:
        """Give it up."""
        self._held.close()


def near(folder: Path, root: Path) -> NearCopy:
    """The copy of a folder below `root`, made once however many processes of the node ask at the same time.

    A folder whose files have changed gets another one. Copies that nobody holds make room, first the one that was not
    asked for for longest.
    StorageError where there is not enough room all the same, or a file cannot be read or written.
    """
    try:
        target, size = root / _name(folder), sum(file.stat().st_size for file in _files(folder))
        root.mkdir(parents=True, exist_ok=True)
        while True:
            handle = _lock_of(target).open("a+")
            fcntl.flock(handle, fcntl.LOCK_SH)
            if target.is_dir():
                os.utime(target)
                return NearCopy(target, handle)
            with handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if not target.is_dir():
                    _make(folder, target, size)
            # From one lock to the other there is a moment without any: it is looked for again.
    except OSError as error:
        raise StorageError(f"{folder} cannot be copied to {root}: {error}") from error


def _make(folder: Path, target: Path, size: int) -> None:
    part = target.with_name(f"{target.name}.part")
    with target.with_name(f"making{_LOCK}").open("a+") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        shutil.rmtree(part, ignore_errors=True)  # of one who was killed
        _make_room(target.parent, size, folder)
        try:
            shutil.copytree(folder, part)  # of links, what they lead to
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        part.rename(target)


def _make_room(root: Path, size: int, folder: Path) -> None:
    copies = sorted((each for each in root.iterdir() if _is_copy(each)), key=_asked_for)
    while shutil.disk_usage(root).free < size and copies:
        copy = copies.pop(0)
        with _lock_of(copy).open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody reads it
            if copy.is_dir():
                shutil.rmtree(copy)
    free = shutil.disk_usage(root).free
    if free < size:
        raise StorageError(
            f"{folder} takes {size:,} bytes, and {root} has {free:,} free beside the copies in use: name a folder on a "
            "larger disk as the profile's `weights`, or leave it out"
        )


def _is_copy(path: Path) -> bool:
    return bool(_OURS.fullmatch(path.name)) and path.is_dir() and _lock_of(path).exists()


def _asked_for(copy: Path) -> float:
    """When, in seconds since the epoch."""
    try:
        return copy.stat().st_mtime
    except FileNotFoundError:  # whole now, or removed
        return math.inf


def _lock_of(copy: Path) -> Path:
    return copy.with_name(copy.name.removesuffix(".part") + _LOCK)


def _name(folder: Path) -> str:
    seen = [[str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns] for file in _files(folder)]
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), seen]).encode()).hexdigest()
    return f"{folder.name[:40]}-{digest[:16]}"


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
