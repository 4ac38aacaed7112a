"""A bucket of an S3 object store, below a prefix: `s3://BUCKET[/PREFIX]`.

    PREFIX/
        <name>-<random>/manifest.json    written last: with it the folder is there, without it it is not
        <name>-<random>/set-aside        its presence says that the folder is out of sight, and stays

An object store renames nothing, so no two commits share a name: two writers, of which one does not know that it was
given up, cannot mix their files. What a killed one has left has no manifest, and is collected at the next commit.

Settings: `endpoint` (a URL; left out: Amazon's), `region`, `ca` (a file with certificates), `path_style` (the bucket in
the path, the default with an endpoint, or in the host's name). The key is none of them: it is found where Amazon's
tools look for it, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the file AWS_SHARED_CREDENTIALS_FILE, or what the
machine was given. So it is in no address, and in nothing that is made of one.

Uploads of more than some megabytes have parts; those of an upload that was killed are invisible here, and expire by the
bucket's own rule for unfinished uploads.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pyarrow import fs

from storage.content import Content, pieces
from storage.errors import StorageError, StoreRefusedError, StoreUnreachableError
from storage.stores import MANIFEST, Address, Place
from storage.stores._s3_errors import Refusal, refusal

if TYPE_CHECKING:
    from storage.stores import Store

log = logging.getLogger(__name__)

_ASIDE = "set-aside"
_RANDOM = 8
"""Hexadecimal digits after a folder's name."""
_CONNECT_S = 5.0
_UPLOADS = 8
"""At once, of one commit: small files wait for the server more than for the network."""

_Result = TypeVar("_Result")


def open_store(place: Place) -> S3Store:
    assert isinstance(place, Address), place
    return S3Store(place)


class S3Store:
    """See `storage.stores.Store`. Nothing is contacted before the first operation."""

    waits_s: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
    """Between two attempts: five within some ten seconds, or thirty where every one waits for an answer."""

    def __init__(self, address: Address) -> None:
        self.address = address
        parts = urlsplit(address.url)
        self._bucket = parts.netloc
        self._root = f"{parts.netloc}/{parts.path.strip('/')}".rstrip("/")
        self._endpoint = str(address.settings.get("endpoint", "")) or "Amazon S3"
        self._files = _file_system(address.settings)

    def folders(self) -> dict[str, dict[str, int]]:
        return {
            name: files for name, files in self._listed().items() if MANIFEST in files and _ASIDE not in files
        }  # fmt: skip

    def read(self, name: str, file: str) -> bytes:
        path = f"{self._root}/{name}/{file}"

        def reading() -> bytes:
            with self._files.open_input_stream(path) as stream:
                content: bytes = stream.read()
                return content

        return self._tried(f"read {path}", reading)

    def commit(self, name: str, files: Mapping[str, Content]) -> str:
        assert [*files][-1] == MANIFEST, list(files)
        self._collect()
        folder = f"{name}-{uuid.uuid4().hex[:_RANDOM]}"
        with ThreadPoolExecutor(_UPLOADS) as pool:
            list(pool.map(lambda file: self._write(folder, file, files[file]), [*files][:-1]))
        self._write(folder, MANIFEST, files[MANIFEST])
        return folder

    def set_aside(self, name: str) -> str:
        self._write(name, _ASIDE, b"")
        return f"{self.address}/{name}"

    def remove(self, name: str) -> None:
        self._delete(f"{self._root}/{name}/{MANIFEST}", self._files.delete_file)
        self._delete(f"{self._root}/{name}", self._files.delete_dir)

    def children(self) -> tuple[str, ...]:
        listed = self._list(recursive=False)
        return tuple(sorted(each.base_name for each in listed if each.type == fs.FileType.Directory))

    def _listed(self) -> dict[str, dict[str, int]]:
        """All folders with what is in them, unfinished ones too."""
        found: dict[str, dict[str, int]] = {}
        for each in self._list(recursive=True):
            folder, _, file = each.path.removeprefix(f"{self._root}/").partition("/")
            if each.type == fs.FileType.File and file and "/" not in file:
                found.setdefault(folder, {})[file] = each.size
        return found

    def _list(self, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._root, recursive=recursive, allow_not_found=True)
        return self._tried(f"list {self._root}", lambda: list(self._files.get_file_info(selector)))

    def _write(self, folder: str, file: str, content: Content) -> None:
        path = f"{self._root}/{folder}/{file}"

        def writing() -> None:
            with self._files.open_output_stream(path) as stream:
                for piece in pieces(content):
                    stream.write(piece)

        try:
            self._tried(f"write {path}", writing)
        except FileNotFoundError as error:  # what is written cannot be absent: its bucket is
            raise self._refused(f"write {path}", Refusal.BUCKET, error) from error

    def _collect(self) -> None:
        for name, files in self._listed().items():
            # Never what was not named here, whatever it looks like.
            if MANIFEST not in files and name[-_RANDOM - 1 : -_RANDOM] == "-":
                self._delete(f"{self._root}/{name}", self._files.delete_dir)

    def _delete(self, path: str, delete: Callable[[str], None]) -> None:
        try:
            self._tried(f"remove {path}", lambda: delete(path))
        except FileNotFoundError:  # an attempt before this one, whose answer was lost
            return

    def _tried(self, doing: str, call: Callable[[], _Result]) -> _Result:
        """Its result, or after a bounded number of attempts an error that says what to do.

        FileNotFoundError comes out at once: it is an answer.
        """
        began = time.monotonic()
        for attempt, wait_s in enumerate((*self.waits_s, None), start=1):
            try:
                return call()
            except FileNotFoundError:
                raise
            except OSError as error:
                found = refusal(error)
                if found is not None:
                    raise self._refused(doing, found, error) from error
                if wait_s is None:
                    seconds = time.monotonic() - began
                    raise StoreUnreachableError(
                        f"cannot {doing}: bucket {self._bucket!r} at {self._endpoint} does not answer, "
                        f"{attempt} times in {seconds:.0f} s: {error}; see that it runs and can be reached from "
                        f"here, then let the run go on: what was committed is still there"
                    ) from error
                log.info("%s: %s; attempt %d of %d", doing, error, attempt, len(self.waits_s) + 1)
                time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, doing: str, why: Refusal, error: OSError) -> StorageError:
        return StoreRefusedError(f"cannot {doing}: bucket {self._bucket!r} at {self._endpoint} refuses: {error}; {why}")


def _file_system(settings: Mapping[str, str | bool]) -> fs.S3FileSystem:
    endpoint, region = str(settings.get("endpoint", "")), str(settings.get("region", ""))
    scheme, _, host = endpoint.rpartition("://")
    ca = settings.get("ca")
    return fs.S3FileSystem(
        scheme=scheme or "https",
        endpoint_override=host or None,
        # Without a name Amazon's library asks the machine that it believes to be on; a server of one's own has one.
        region=region or ("us-east-1" if host else None),
        tls_ca_file_path=str(Path(str(ca)).expanduser()) if ca else None,
        force_virtual_addressing=settings.get("path_style") is False,
        connect_timeout=_CONNECT_S,
        # One policy of attempts, not two: `_tried` knows which errors pass.
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
        # Small files in one request, and no question first whether the bucket is there.
        allow_delayed_open=True,
    )


if TYPE_CHECKING:
    _: Store = S3Store(Address(""))
