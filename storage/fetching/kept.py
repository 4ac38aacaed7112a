"""What was fetched: a note beside the files, with the sizes and hashes they had when they were checked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from storage.errors import NotFetchedError
from storage.fetching.wanted import Wanted

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """A file as it was when it was checked."""

    size: int
    hash: str
    """`sha256:...`, or `git:...` of a small file: the name that git has for its content."""
    mtime_ns: int


@dataclass(frozen=True)
class Fetched:
    """A model or a data set on this machine's disk."""

    wanted: Wanted
    commit: str
    folder: Path
    files: Mapping[str, Kept]
    """Path below the folder -> the file."""
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of a data set: split -> its files."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(kept.size for kept in self.files.values())


def found(wanted: Wanted, *, thorough: bool = False) -> Fetched:
    """What was fetched, if it is all there. With `thorough` every file's hash is computed, else that of files that were
    written since.

    NotFetchedError, saying what is missing or not as it was.
    """
    commit = known_commit(wanted)
    if commit is None:
        raise NotFetchedError(f"{wanted.name} was not fetched to {wanted.store}")
    fetched = _read(wanted, commit)
    if fetched is None:
        raise NotFetchedError(f"{wanted.name} (commit {commit[:12]}) was not fetched to {wanted.store}")
    wrong = [why for path, kept in fetched.files.items() if (why := _wrong(fetched.folder / path, kept, thorough))]
    if wrong:
        shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise NotFetchedError(f"{wanted.name} is not as it was fetched: {shown}")
    return fetched


def known_commit(wanted: Wanted) -> str | None:
    """The commit that its revision was when it was fetched."""
    if wanted.revision is not None and _COMMIT.fullmatch(wanted.revision):
        return wanted.revision
    try:
        return _ref(wanted).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def keep(fetched: Fetched) -> None:
    """Note what was fetched."""
    wanted = fetched.wanted
    note: dict[str, Any] = {
        "commit": fetched.commit,
        "folder": os.path.relpath(fetched.folder, wanted.store),
        "files": {
            path: {"size": kept.size, "hash": kept.hash, "mtime_ns": kept.mtime_ns}
            for path, kept in fetched.files.items()
        },
        "splits": {split: list(paths) for split, paths in fetched.splits.items()},
    }
    _write(wanted, _note(wanted, fetched.commit), json.dumps(note, indent=1))
    refer(wanted, fetched.commit)


def refer(wanted: Wanted, commit: str) -> None:
    """Note which commit a revision is."""
    if wanted.revision != commit and known_commit(wanted) != commit:
        _write(wanted, _ref(wanted), commit)


def measured(file: Path, digest: str) -> Kept:
    """The file as it is now; its hash is known to be `digest`."""
    stat = file.stat()
    return Kept(stat.st_size, digest, stat.st_mtime_ns)


def digest_of(file: Path, kind: str) -> str:
    """`sha256:...` or `git:...` of a file's content."""
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def _wrong(file: Path, kept: Kept, thorough: bool) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        stat = file.stat()
    except OSError:
        return f"{file} is not there"
    if stat.st_size != kept.size:
        return f"{file} has {stat.st_size:,} bytes instead of {kept.size:,}"
    if thorough or stat.st_mtime_ns != kept.mtime_ns:
        got = digest_of(file, kept.hash.partition(":")[0])
        if got != kept.hash:
            return f"{file} was altered: its hash is {got}, not {kept.hash}"
    return ""


def _read(wanted: Wanted, commit: str) -> Fetched | None:
    # A note of another version, or half of one, is none: the files are checked anew.
    try:
        note = json.loads(_note(wanted, commit).read_bytes())
        files = {path: Kept(each["size"], each["hash"], each["mtime_ns"]) for path, each in note["files"].items()}
        splits = {split: tuple(paths) for split, paths in note["splits"].items()}
        return Fetched(wanted, commit, wanted.store / note["folder"], files, splits)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(wanted: Wanted, commit: str) -> Path:
    config = f".{quote(wanted.config, safe='')}" if wanted.config else ""
    return wanted.store / "tunery" / f"{commit}{config}.json"


def _ref(wanted: Wanted) -> Path:
    return wanted.store / "tunery" / "refs" / (quote(wanted.revision, safe="") if wanted.revision else "(default)")


def _write(wanted: Wanted, file: Path, text: str) -> None:
    """Where that cannot be done, as in a cache that is only read, the files are checked anew the next time."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        log.warning("cannot note in %s what was fetched: %s", wanted.store, error)
