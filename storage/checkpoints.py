"""Checkpoints at a place (`storage.stores`): whole or not there, hashed, the only good copy never overwritten.

    place/
        000007-step120/           the seventh save of this store, at step 120
            <name> ...
            manifest.json         written last: step, metrics, best, and size and SHA-256 of each file

One process writes to a store at a time; any number may read.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from storage.content import Content, pieces, size
from storage.errors import ChecksumError, StorageError, StoreUnreachableError
from storage.stores import MANIFEST, Place, Store, open_store

_NAME = re.compile(r"(?P<save>\d+)-step(?P<step>\d+)(-[0-9a-f]+)?")
"""A place may have added something that sets two apart which were saved at once."""


@dataclass(frozen=True)
class Checkpoint:
    """One committed checkpoint, as it was read: what was checked is what it holds, whatever becomes of the place."""

    step: int
    metrics: Mapping[str, float]
    name: str
    """Of its folder at the place."""
    where: str
    """The folder's path or address."""
    digest: str
    """SHA-256 of the manifest, in hex: the same for the same content."""
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """The one in this folder, every file checked. ChecksumError where one is not what was saved."""
        return _Folder(folder.parent, open_store(folder.parent), folder.name).opened()

    @property
    def names(self) -> tuple[str, ...]:
        """The files it holds."""
        return tuple(self.files)

    def read(self, name: str) -> bytes:
        """A file's content. StorageError where the checkpoint has no such file."""
        if name not in self.files:
            raise StorageError(
                f"checkpoint {self.where} has no file {name!r}; there is: {', '.join(sorted(self.files))}"
            )
        return self.files[name]


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
    digest: str


@dataclass(frozen=True)
class _Folder:
    """One checkpoint's folder; ChecksumError for whatever in it is not as it was saved."""

    place: Place
    store: Store
    name: str

    def opened(self) -> Checkpoint:
        manifest = self.manifest()
        files = {file: self._checked(file, entry) for file, entry in manifest.files.items()}
        return Checkpoint(manifest.step, manifest.metrics, self.name, self._where(), manifest.digest, files)

    def manifest(self) -> _Manifest:
        content = self._read(MANIFEST)
        try:
            raw = json.loads(content)
            files = {file: _Entry(entry["size"], entry["sha256"]) for file, entry in raw["files"].items()}
            return _Manifest(raw["step"], raw["metrics"], raw["best"], files, _sha256(content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChecksumError(f"{self._where(MANIFEST)} cannot be read: {error}") from error

    def check_sizes(self, manifest: _Manifest, sizes: Mapping[str, int]) -> None:
        for file, entry in manifest.files.items():
            if file not in sizes:
                raise ChecksumError(f"{self._where(file)} is not there")
            self._check_size(file, sizes[file], entry)

    def _check_size(self, file: str, size: int, entry: _Entry) -> None:
        if size != entry.size:
            raise ChecksumError(f"{self._where(file)} has {size} bytes, its manifest says {entry.size}")

    def _checked(self, file: str, entry: _Entry) -> bytes:
        content = self._read(file)
        self._check_size(file, len(content), entry)
        if _sha256(content) != entry.sha256:
            raise ChecksumError(f"{self._where(file)} is not what was saved: its SHA-256 differs from its manifest's")
        return content

    def _read(self, file: str) -> bytes:
        try:
            return self.store.read(self.name, file)
        except OSError as error:
            raise ChecksumError(f"{self._where(file)} cannot be read: {error.strerror or error}") from error

    def _where(self, file: str = "") -> str:
        folder = self.place / self.name
        return str(folder / file if file else folder)


class CheckpointStore:
    """The checkpoints of one trial: the newest `keep`, and the best.

    Of every operation: StoreUnreachableError where the place does not answer, StoreRefusedError where it refuses. No
    outage passes over a checkpoint.
    """

    def __init__(self, place: Place, keep: int = 2) -> None:
        """Nothing is contacted or created until something is asked for."""
        assert keep >= 1, keep
        self.place = place
        self.keep = keep
        self.problems: list[str] = []
        """What was passed over because it was damaged, in words, in the order it was met."""
        self._store = open_store(place)
        self._damaged: set[str] = set()
        self._manifests: dict[tuple[str, int], _Manifest] = {}
        """By folder and size: a writer looks at those that are kept at each save, and they do not change."""

    def save(self, step: int, files: Mapping[str, Content], *, metrics: Mapping[str, float], best: bool) -> None:
        """Commit a checkpoint; only then are older ones removed. `best` says that it is the best one so far.

        A file may be given as its path: it is read in pieces, once for its hash and once to be kept.

        StorageError where it cannot be written (disk full, say): what was there before is there still.
        """
        assert files, "a checkpoint without files"
        assert all(Path(name).name == name and name != MANIFEST for name in files), sorted(files)
        entries = {name: _Entry(size(content), _sha256(content)) for name, content in files.items()}
        manifest = {
            "step": step,
            "metrics": dict(metrics),
            "best": best,
            "files": {n: vars(e) for n, e in entries.items()},
        }
        content = {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}
        failed = f"cannot save the checkpoint of step {step} in {self.place}"
        try:
            self._store.commit(f"{self._next():06d}-step{step}", content)
        except OSError as error:
            raise StorageError(f"{failed}: {error.strerror or error}; the last good one is kept") from error
        except StorageError as error:
            raise type(error)(f"{failed}; the last good one is kept: {error}") from error
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
        found = next((name for name in self._folders() if _step(name) == step), None)
        if found is None:
            known = ", ".join(map(str, sorted(self.steps()))) or "none"
            raise StorageError(f"no checkpoint of step {step} in {self.place}; there are: {known}")
        try:
            return self._open(found)
        except ChecksumError as error:
            good = next((other for other in self.steps() if other != step and self._is_good(other)), None)
            hint = f"the newest good one is of step {good}" if good is not None else "no other one is good"
            raise ChecksumError(f"{error}; {hint}") from error

    def _is_good(self, step: int) -> bool:
        try:
            self._open(next(name for name in self._folders() if _step(name) == step))
        except ChecksumError:
            return False
        return True

    def set_back(self, to: Checkpoint) -> tuple[str, ...]:
        """Make one that is here the newest: those saved after it are set aside, where they stay. Where they lie now."""
        names = list(self._folders())
        assert to.name in names, to.where
        # The newest first: one that is killed meanwhile leaves a store that goes on somewhere.
        return tuple(self._store.set_aside(name) for name in names[: names.index(to.name)])

    def _open(self, name: str) -> Checkpoint:
        return self._folder(name).opened()

    def _folder(self, name: str) -> _Folder:
        return _Folder(self.place, self._store, name)

    def _first_good(self, *, best: bool) -> Checkpoint | None:
        while True:
            names = list(self._folders())
            for name in names:
                try:
                    if not best or self._folder(name).manifest().best:
                        return self._open(name)
                except ChecksumError as error:
                    if name in self._folders():
                        self._pass_over(name, str(error))
            # A writer that saves meanwhile removes old ones: what vanished has a successor, so look again.
            if set(names) <= set(self._folders()):
                return None

    def _folders(self) -> dict[str, Mapping[str, int]]:
        """The committed ones, newest save first. By save and not by step: a trial set back saves lower steps again."""
        try:
            found = self._store.folders()
        except OSError as error:
            raise StorageError(
                f"the checkpoints in {self.place} cannot be listed: {error.strerror or error}"
            ) from error
        named = [(match, files) for name, files in found.items() if (match := _NAME.fullmatch(name))]
        return {match[0]: files for match, files in sorted(named, key=lambda pair: int(pair[0]["save"]), reverse=True)}

    def _next(self) -> int:
        newest = next(iter(self._folders()), None)
        return int(newest.partition("-")[0]) + 1 if newest else 1

    def _prune(self) -> None:
        try:
            folders = self._folders()
            # A damaged one must not take the place of a good one; by size, since hashing each time is too much.
            whole = {name: manifest for name, files in folders.items() if (manifest := self._whole(name, files))}
            kept = {*list(whole)[: self.keep], *[name for name, manifest in whole.items() if manifest.best][:1]}
            for name in folders:
                if name not in kept:
                    self._store.remove(name)
        except (OSError, StoreUnreachableError):
            return  # what was to be saved is there, and what fails here is tried again at the next save

    def _whole(self, name: str, files: Mapping[str, int]) -> _Manifest | None:
        if name in self._damaged:
            return None
        try:
            manifest = self._known(name, files)
            self._folder(name).check_sizes(manifest, files)
        except ChecksumError as error:
            self._pass_over(name, str(error))
            return None
        return manifest

    def _known(self, name: str, files: Mapping[str, int]) -> _Manifest:
        key = (name, files.get(MANIFEST, 0))
        if key not in self._manifests:
            self._manifests[key] = self._folder(name).manifest()
        return self._manifests[key]

    def _pass_over(self, name: str, problem: str) -> None:
        if name not in self._damaged:
            self._damaged.add(name)
            self.problems.append(problem)


def _step(name: str) -> int:
    match = _NAME.fullmatch(name)
    assert match, name
    return int(match["step"])


def _sha256(content: Content) -> str:
    found = hashlib.sha256()
    for piece in pieces(content):
        found.update(piece)
    return found.hexdigest()
