"""Bringing what is wanted to this machine's disk, or finding it there."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

import httpx

from storage.errors import FetchError, HubUnreachableError, NotFetchedError
from storage.fetching import transfer
from storage.fetching.kept import Fetched, Kept, digest_of, found, keep, known_commit, measured, refer
from storage.fetching.repository import Hub, Remote, model_files
from storage.fetching.wanted import Source, Wanted, offline
from storage.models import model_folder, on_a_hub

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Files that are downloaded side by side."""

Progress = Callable[[int, int], None]
"""Called with the bytes there are and the bytes there will be; what it raises ends the download."""


@dataclass(frozen=True)
class Outcome:
    """What fetching came to."""

    fetched: Fetched
    downloaded: int
    """Bytes that came over the network; 0 where all was there."""
    mended: tuple[str, ...] = ()
    """Files that were there and not right, and were downloaded again."""


def base_folder(model_id: str, revision: str | None, source: Source) -> str:
    """The folder that a base model is loaded from; one of a hub is fetched where it is not there.

    StorageError as `model_folder` and `have`.
    """
    if not on_a_hub(model_id):
        return model_folder(model_id)
    return str(have(Wanted("model", model_id, revision, source)).folder)


def have(wanted: Wanted, progress: Progress | None = None) -> Fetched:
    """What is wanted, on disk. A commit that was fetched is not asked for again; a branch is, where there is a network.

    NotFetchedError where the environment forbids the network (`offline`); otherwise as `fetch`.
    """
    if offline() or wanted.revision == known_commit(wanted):
        try:
            return found(wanted)
        except NotFetchedError:
            if offline():
                raise
    try:
        return fetch(wanted, progress).fetched
    except HubUnreachableError as error:
        try:
            kept = found(wanted)
        except NotFetchedError:
            raise error from None
        log.warning("%s; what was fetched earlier is used: commit %s", error, kept.commit)
        return kept


def fetch(wanted: Wanted, progress: Progress | None = None, *, thorough: bool = False) -> Outcome:
    """Download what is not there, and check everything that is; with `thorough` by computing every hash.

    Raises HubUnreachableError, NotOnHubError, FetchError for what may not be read or does not fit the disk, and
    ChecksumError for a file that the hub itself has wrong.
    """
    hub = _hub(wanted.source)
    commit = hub.commit(wanted)
    at_commit = Wanted(wanted.kind, wanted.id, commit, wanted.source, wanted.config)
    try:
        there = found(at_commit, thorough=thorough)
        refer(wanted, commit)
        return Outcome(Fetched(wanted, commit, there.folder, there.files, there.splits), 0)
    except NotFetchedError:
        pass  # not at all, or not as it was: below each file is looked at
    remote = hub.files(wanted, commit)
    splits: Mapping[str, tuple[str, ...]] = {}
    if wanted.kind == "model":
        names = model_files(remote, wanted)
    else:
        # Which files a configuration has is known to the library that reads them; it takes seconds to load.
        from storage.fetching.data_files import data_files

        names, splits = data_files(wanted, commit, remote)
    job = _Job(hub, wanted, commit, {name: remote[name] for name in names}, progress)
    with _alone(wanted):
        job.run()
    fetched = Fetched(wanted, commit, wanted.store / "snapshots" / commit, job.kept, splits)
    keep(fetched)
    return Outcome(fetched, job.downloaded, tuple(job.mended))


def _hub(source: Source) -> Hub:
    if source == "modelscope":
        from storage.fetching.modelscope import ModelScope

        return ModelScope()
    from storage.fetching.hugging_face import HuggingFace  # half a second, for those who need it

    return HuggingFace()


@contextmanager
def _alone(wanted: Wanted) -> Iterator[None]:
    """Two at once would write to one file."""
    file = wanted.store / "tunery" / "lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("w")
    except OSError as error:
        raise FetchError(f"cannot write to {wanted.store}: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another process is fetching %s: waiting for it", wanted.name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class _Job:
    """The files of one commit."""

    def __init__(
        self,
        hub: Hub,
        wanted: Wanted,
        commit: str,
        files: Mapping[str, Remote],
        progress: Progress | None,
    ) -> None:
        self._hub, self._wanted, self._commit, self._files = hub, wanted, commit, files
        self._progress, self._done, self._total = progress, 0, sum(file.size for file in files.values())
        self._lock, self._ended = Lock(), Event()
        self._folder = wanted.store / "snapshots" / commit
        self.kept: dict[str, Kept] = {}
        self.mended: list[str] = []
        self.downloaded = 0

    def run(self) -> None:
        """Look at each file, and download those that are not right. Raises what the first of them raised."""
        missing = [path for path in self._files if not self._there(path)]
        self._room(missing)
        places: dict[Path, list[str]] = {}  # two files of one content may have one place
        for path in missing:
            places.setdefault(self._place(path), []).append(path)
        with transfer.client(self._hub.headers()) as session, ThreadPoolExecutor(AT_ONCE) as pool:
            tasks = [pool.submit(self._bring, session, place, paths) for place, paths in places.items()]
            try:
                for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                    task.result()
            except BaseException:
                self._ended.set()
                pool.shutdown(cancel_futures=True)
                raise
        self.kept = {path: self.kept[path] for path in self._files}

    def _there(self, path: str) -> bool:
        """Whether a file is there and right; one that is not is taken away."""
        remote, file, place = self._files[path], self._folder / path, self._place(path)
        for at in dict.fromkeys((file, place)):
            if not at.is_file():
                continue
            if at.stat().st_size == remote.size and digest_of(at, remote.hash.partition(":")[0]) == remote.hash:
                self._tell(remote.size)
                self._link(path)
                return True
            self.mended.append(path)
            place.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
        return False

    def _bring(self, session: httpx.Client, place: Path, paths: Sequence[str]) -> None:
        remote, url = self._files[paths[0]], self._hub.url(self._wanted, self._commit, paths[0])
        try:
            came = transfer.download(session, url, place, size=remote.size, digest=remote.hash, on_bytes=self._tell)
        except httpx.HTTPStatusError as error:
            answer = error.response
            raise self._hub.explain(self._wanted, answer.status_code, answer.headers.get("X-Error-Code", "")) from error
        self._tell(remote.size * (len(paths) - 1))
        with self._lock:
            self.downloaded += came
        for path in paths:
            self._link(path)

    def _place(self, path: str) -> Path:
        return self._hub.place(self._wanted, self._commit, path, self._files[path])

    def _link(self, path: str) -> None:
        if not (self._folder / path).is_file():
            self._hub.link(self._wanted, self._commit, path)
        self.kept[path] = measured(self._folder / path, self._files[path].hash)

    def _tell(self, count: int) -> None:
        if self._ended.is_set():
            raise FetchError("ended, because another file could not be fetched")
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)

    def _room(self, missing: Sequence[str]) -> None:
        """Refuse at once what cannot fit."""
        needed = sum(self._files[path].size for path in missing)
        parent = next(folder for folder in (self._wanted.store, *self._wanted.store.parents) if folder.is_dir())
        free = shutil.disk_usage(parent).free
        if needed > free:
            raise FetchError(
                f"{self._wanted.name} needs {needed:,} bytes more, and the disk of {parent} has {free:,} left: free "
                f"some space, or set HF_HOME (MODELSCOPE_CACHE) to a folder on another disk"
            )
