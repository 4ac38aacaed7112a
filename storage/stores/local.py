"""A folder, on a disk of this machine's or a shared one: commits are a rename, and last through a power cut.

root/
    <name>/                 there whole
    .writing-<random>/      a commit or a removal in progress, or what a killed one left
    set-aside-<random>-<name>/
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from storage.content import Content, pieces
from storage.stores import MANIFEST, Place

if TYPE_CHECKING:
    from storage.stores import Store

_UNFINISHED = ".writing-"
_ASIDE = "set-aside-"


def open_store(place: Place) -> LocalStore:
    assert isinstance(place, Path), place
    return LocalStore(place)


class LocalStore:
    """See `storage.stores.Store`. Nothing is created before the first commit."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self) -> dict[str, dict[str, int]]:
        while True:
            there = [each for each in self._entries() if not each.name.startswith((_UNFINISHED, _ASIDE))]
            sizes = {folder.name: _sizes(folder) for folder in there}
            # Who has removed one meanwhile has committed its successor before: perhaps after the names were read.
            if all(os.path.lexists(folder) for folder in there):
                return {name: found for name, found in sizes.items() if found is not None}

    def read(self, name: str, file: str) -> bytes:
        return (self.root / name / file).read_bytes()

    def commit(self, name: str, files: Mapping[str, Content]) -> str:
        assert [*files][-1] == MANIFEST, list(files)
        temporary = self.root / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._collect()
            temporary.mkdir()
            for file, content in files.items():
                _write(temporary / file, content)
            _sync(temporary)
            temporary.rename(self.root / name)
            _sync(self.root)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return name

    def set_aside(self, name: str) -> str:
        aside = (self.root / name).rename(self.root / f"{_ASIDE}{uuid.uuid4().hex[:8]}-{name}")
        _sync(self.root)
        return str(aside)

    def remove(self, name: str) -> None:
        doomed = self.root / f"{_UNFINISHED}{uuid.uuid4().hex}"
        (self.root / name).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # what is left is collected at the next commit

    def children(self) -> tuple[str, ...]:
        return tuple(sorted(each.name for each in self._entries()))

    def _entries(self) -> list[Path]:
        return list(self.root.iterdir()) if self.root.is_dir() else []

    def _collect(self) -> None:
        for leftover in self.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int] | None:
    """None where it is no folder, or none any more."""
    try:
        return {file.name: file.lstat().st_size for file in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write(path: Path, content: Content) -> None:
    with path.open("wb") as handle:
        for piece in pieces(content):
            handle.write(piece)
        handle.flush()
        os.fsync(handle.fileno())


def _sync(folder: Path) -> None:
    """Make a folder's entries last: without it a power cut can undo a rename that already happened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if TYPE_CHECKING:
    _: Store = LocalStore(Path())
