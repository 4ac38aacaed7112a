"""Checkpoints in a folder: whole or not there, hashed, and never the only copy of a good one overwritten.

    root/
        000007-step120/           the seventh save of this store, at step 120
            manifest.json         written last: step, metrics, best, and size and SHA-256 of each file
            <name> ...
        .writing-<random>/        a save or a removal in progress, or what a killed one left
        set-aside-<random>-000008-step140/    newer than one that the trial was set back to; nobody removes it

One process writes to a store at a time; any number may read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import ChecksumError, StorageError

_MANIFEST = "manifest.json"
_UNFINISHED = ".writing-"
_ASIDE = "set-aside-"
_NAME = re.compile(r"(\d+)-step(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """One committed checkpoint."""

    step: int
    metrics: Mapping[str, float]
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """The one in this folder, every file checked. ChecksumError where one is not what was saved."""
        manifest = _manifest(folder)
        for name, entry in manifest.files.items():
            _checked(folder / name, entry)
        return cls(manifest.step, manifest.metrics, folder)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, in hex: the same for the same content."""
        return hashlib.sha256((self.folder / _MANIFEST).read_bytes()).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """The files it holds."""
        return tuple(_manifest(self.folder).files)

    def read(self, name: str) -> bytes:
        """A file's content, checked against the manifest.

        ChecksumError where it is not what was saved, StorageError where the checkpoint has no such file.
        """
        entries = _manifest(self.folder).files
        if name not in entries:
            raise StorageError(f"checkpoint {self.folder} has no file {name!r}; there is: {', '.join(sorted(entries))}")
        return _checked(self.folder / name, entries[name])


@dataclass(frozen=True)
class _Entry:
    size: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    step: int
    metrics: Mapping[str, float]
    best: bool
    files: Mapping[str, _Entry]


class CheckpointStore:
    """The checkpoints of one trial: the newest `keep`, and the best."""

    def __init__(self, root: Path, keep: int = 2) -> None:
        """Nothing is created until the first save."""
        assert keep >= 1, keep
        self.root = root
        self.keep = keep
        self.problems: list[str] = []
        """What was passed over because it was damaged, in words, in the order it was met."""
        self._damaged: set[Path] = set()

    def save(self, step: int, files: Mapping[str, bytes], *, metrics: Mapping[str, float], best: bool) -> None:
        """Commit a checkpoint; only then are older ones removed. `best` says that it is the best one so far.

        StorageError where it cannot be written (disk full, say): what was there before is there still.
        """
        assert files, "a checkpoint without files"
        assert all(Path(name).name == name and name != _MANIFEST for name in files), sorted(files)
        temporary = self.root / f"{_UNFINISHED}{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._collect()
            temporary.mkdir()
            entries = {name: _write(temporary / name, content) for name, content in files.items()}
            manifest = {"step": step, "metrics": dict(metrics), "best": best, "files": entries}
            _write(temporary / _MANIFEST, json.dumps(manifest, indent=1).encode())
            _sync(temporary)
            temporary.rename(self.root / f"{self._next():06d}-step{step}")
            _sync(self.root)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StorageError(
                f"cannot save the checkpoint of step {step} in {self.root}: {error.strerror or error}; "
                f"the last good one is kept"
            ) from error
        self._prune()

    def newest(self) -> Checkpoint | None:
        """The newest one whose hashes hold; damaged ones are passed over and told in `problems`."""
        return self._first_good(best=False)

    def best(self) -> Checkpoint | None:
        """The best one, if its hashes hold; otherwise the best before it if that is still there, or None."""
        return self._first_good(best=True)

    def steps(self) -> tuple[int, ...]:
        """Of those that are there, damaged ones too; the newest save first, each step once."""
        return tuple(dict.fromkeys(map(_step, self._folders())))

    def at(self, step: int) -> Checkpoint:
        """The newest save of this step.

        StorageError where there is none, naming those that are; ChecksumError for a damaged one, naming the newest good
        one of another step.
        """
        found = next((folder for folder in self._folders() if _step(folder) == step), None)
        if found is None:
            known = ", ".join(map(str, sorted(self.steps()))) or "none"
            raise StorageError(f"no checkpoint of step {step} in {self.root}; there are: {known}")
        try:
            return Checkpoint.open(found)
        except ChecksumError as error:
            good = next((other for other in self.steps() if other != step and self._is_good(other)), None)
            hint = f"the newest good one is of step {good}" if good is not None else "no other one is good"
            raise ChecksumError(f"{error}; {hint}") from error

    def _is_good(self, step: int) -> bool:
        try:
            Checkpoint.open(next(folder for folder in self._folders() if _step(folder) == step))
        except ChecksumError:
            return False
        return True

    def set_back(self, to: Checkpoint) -> tuple[Path, ...]:
        """Make one that is here the newest: those saved after it are set aside, where they stay. Where they lie now."""
        folders = self._folders()
        assert to.folder.resolve() in [folder.resolve() for folder in folders], to.folder
        moved = []
        for folder in folders:  # the newest first: one that is killed meanwhile leaves a store that goes on somewhere
            if folder.resolve() == to.folder.resolve():
                break
            moved.append(folder.rename(self.root / f"{_ASIDE}{uuid.uuid4().hex[:8]}-{folder.name}"))
        _sync(self.root)
        return tuple(moved)

    def _first_good(self, *, best: bool) -> Checkpoint | None:
        while True:
            folders = self._folders()
            for folder in folders:
                try:
                    if not best or _manifest(folder).best:
                        return Checkpoint.open(folder)
                except ChecksumError as error:
                    if folder.is_dir():
                        self._pass_over(folder, str(error))
            # A writer that saves meanwhile removes old ones: what vanished has a successor, so look again.
            if all(folder.is_dir() for folder in folders):
                return None

    def _folders(self) -> list[Path]:
        """The committed ones, newest save first. By save and not by step: a trial set back saves lower steps again."""
        if not self.root.is_dir():
            return []
        named = [(match, path) for path in self.root.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for match, path in sorted(named, key=lambda pair: int(pair[0][1]), reverse=True)]

    def _next(self) -> int:
        newest = next(iter(self._folders()), None)
        return int(newest.name.partition("-")[0]) + 1 if newest else 1

    def _collect(self) -> None:
        for leftover in self.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _prune(self) -> None:
        # A damaged one must not take the place of a good one; sizes are looked at, since hashing each time is too much.
        whole = [folder for folder in self._folders() if folder not in self._damaged and self._looks_whole(folder)]
        kept = set(whole[: self.keep])
        kept |= set([folder for folder in whole if _manifest(folder).best][:1])
        for folder in self._folders():
            if folder not in kept:
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        # Out of sight in one go, so that no reader meets half of it; what fails is tried again at the next save.
        doomed = self.root / f"{_UNFINISHED}{uuid.uuid4().hex}"
        with suppress(OSError):
            folder.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _looks_whole(self, folder: Path) -> bool:
        try:
            for name, entry in _manifest(folder).files.items():
                size = (folder / name).stat().st_size
                if size != entry.size:
                    raise ChecksumError(f"{folder / name} has {size} bytes, its manifest says {entry.size}")
        except (ChecksumError, OSError) as error:
            self._pass_over(folder, str(error))
            return False
        return True

    def _pass_over(self, folder: Path, problem: str) -> None:
        if folder not in self._damaged:
            self._damaged.add(folder)
            self.problems.append(problem)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("step")[2])


def _write(path: Path, content: bytes) -> dict[str, int | str]:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sync(folder: Path) -> None:
    """Make a folder's entries last: without it a power cut can undo a rename that already happened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(folder: Path) -> _Manifest:
    try:
        raw = json.loads((folder / _MANIFEST).read_bytes())
        files = {name: _Entry(entry["size"], entry["sha256"]) for name, entry in raw["files"].items()}
        return _Manifest(raw["step"], raw["metrics"], raw["best"], files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChecksumError(f"{folder / _MANIFEST} cannot be read: {error}") from error


def _checked(path: Path, entry: _Entry) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ChecksumError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) != entry.size:
        raise ChecksumError(f"{path} has {len(content)} bytes, its manifest says {entry.size}")
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ChecksumError(f"{path} is not what was saved: its SHA-256 differs from its manifest's")
    return content
