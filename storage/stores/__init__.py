"""Places where folders of files are kept, each there whole or not at all: a module a kind of place.

To add a place, add a file here with `open_store(address) -> Store`; an address beginning with `<file>://` is its, and
what it takes beside that stands in the address's settings. `local` is the one of folders. A module whose name begins
with an underscore is a helper of the others. Nothing heavy is imported before a store is opened.
"""

from __future__ import annotations

import importlib
import pkgutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

from storage.content import Content
from storage.errors import StorageError

MANIFEST = "manifest.json"
"""The file that is written last: where files cannot be renamed, a folder is there when this one is."""


@dataclass(frozen=True)
class Address:
    """Where a store is that is no folder. It holds no secret: it may be kept, pickled, logged and shown."""

    url: str
    """SCHEME://..."""
    settings: Mapping[str, str | bool] = field(default_factory=dict)
    """As the scheme's module takes them."""

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    def __truediv__(self, part: str) -> Address:
        return replace(self, url=f"{self.url.rstrip('/')}/{part}")

    def __str__(self) -> str:
        return self.url


Place = Path | Address
"""Where a store is: a folder, of this machine or shared, or an address."""


class Store(Protocol):
    """The folders at one place.

    An outage is never taken for an empty or a damaged store. Of every operation: StoreUnreachableError where the place
    does not answer within its bounded attempts, StoreRefusedError where another attempt would only be refused again.
    Those of a folder raise OSError where the disk refuses.
    """

    def folders(self) -> Mapping[str, Mapping[str, int]]:
        """Those that are there: name -> file -> bytes."""

    def read(self, name: str, file: str) -> bytes:
        """A file's content. OSError where there is none or it cannot be read: then the folder is damaged."""

    def commit(self, name: str, files: Mapping[str, Content]) -> str:
        """Keep a folder: all of it, or nothing that counts. The last file is the manifest. The name that it got.

        What an earlier commit has left unfinished is collected first: one process commits to a place at a time.
        """

    def set_aside(self, name: str) -> str:
        """Take a folder out of `folders`, and keep it. Where it lies then."""

    def remove(self, name: str) -> None:
        """Out of sight in one go, so that no reader meets half of it; what is left of one is collected."""

    def children(self) -> tuple[str, ...]:
        """Names of the places right below this one, where something is."""


class _Kind(Protocol):
    def open_store(self, place: Place) -> Store: ...


def names() -> tuple[str, ...]:
    """The kinds of places there are, without importing them."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def open_store(place: Place) -> Store:
    """The store at a place; nothing is contacted yet. StorageError for an address of no known kind."""
    kind = "local" if isinstance(place, Path) else place.scheme
    if kind not in names():
        raise StorageError(f"no store is known for {place}: known are a folder and {', '.join(_schemes())}")
    # Modules are the kinds: an import cannot be checked against a protocol, so each does that itself, at its end.
    return cast("_Kind", importlib.import_module(f"{__name__}.{kind}")).open_store(place)


def _schemes() -> list[str]:
    return [f"{name}://" for name in names() if name != "local"]


def check(place: Place) -> None:
    """Write, list, read and remove a few bytes: StorageError, which says what to do, where one of these cannot be."""
    store = open_store(place)
    content = uuid.uuid4().bytes
    try:
        name = store.commit("probe", {MANIFEST: content})
        found = store.read(name, MANIFEST) if name in store.folders() else b""
        store.remove(name)
    except OSError as error:
        raise StorageError(f"{place} cannot be used as a store: {error.strerror or error}") from error
    finally:
        if isinstance(place, Path):
            with suppress(OSError):  # it is gone, or was something's before
                place.rmdir()
    if found != content:
        raise StorageError(f"{place} cannot be used as a store: what was written a moment ago is not there")
