"""From what a user calls a model to a folder with its files. Loads neither torch nor, for a folder, MLflow."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import ChampionMovedError, NotRegisteredError, RegistryUnreachableError
from tunery.errors import ConflictError, NotFoundError, UnreachableError
from tunery.home import Home
from tunery.inference import trials
from tunery.inference.card import FILE, AdapterCard
from tunery.profile import load_profile

if TYPE_CHECKING:
    from storage.registry import Registry, Version


@dataclass(frozen=True)
class Source:
    """A model's files."""

    name: str
    """`glue-cola/3` for a registered version, `glue-1a2b3c4d/cola/3` for a trial, else the folder as it was given."""
    folder: Path
    card: AdapterCard
    notes: tuple[str, ...] = ()
    """What a user should know of them."""


def locate(model: str | Path, *, home: Home | None = None, profile: str | None = None) -> Source:
    """The files of `name@alias`, `name/3`, `name` (its champion), a run's trial `run/study/3` (`run/3` where it has
    one study), or of a folder that holds an adapter.

    `name/3` is a version where a model of that name is registered, and a trial where only a run has the name. The
    files of a version and of a trial are copied once, under the home's cache. Raises NotFoundError, saying what there
    is, InputError for a name that is not enough and files that are damaged, and UnreachableError where the registry
    does not answer.
    """
    folder = Path(model).expanduser()
    is_path = isinstance(model, Path) or model.startswith(("/", "./", "../", "~")) or model in (".", "..")
    # A folder that happens to be called as a model is no adapter's, and does not hide the model.
    if folder.is_dir() and (is_path or (folder / FILE).exists()):
        return Source(str(model), folder, AdapterCard.read(folder))
    if is_path:
        raise NotFoundError(f"no folder {folder}")
    home = home or Home.from_environment()
    wanted = None
    try:
        wanted = trials.named(str(model), home.runs)
        if wanted is None or (wanted.by_run_name and _is_registered(wanted, home, profile)):
            return _version(str(model), home, profile)
    except NotFoundError as error:
        run, _, rest = str(model).partition("/")
        also = f"; and no run is named {run!r}" if rest and "/" not in rest and wanted is None else ""
        also += f"; and the folder {model} holds no adapter of tunery" if folder.is_dir() else ""
        also += f"; and there is no folder {model}" if "/" in rest and not folder.is_dir() else ""
        raise NotFoundError(f"{error}{also}") from error
    # A run in a folder needs no secret, and so none that could not be found.
    with nullcontext() if isinstance(wanted.run.store, Path) else load_profile(profile, home).secrets_at_hand():
        kept = trials.keep(wanted, home)
    return Source(kept.name, kept.folder, AdapterCard.read(kept.folder), kept.notes)


def _is_registered(wanted: trials.Named, home: Home, profile: str | None) -> bool:
    """Whether a model has the name by which a run is called."""
    try:
        with open_registry(home=home, profile=profile) as registry:
            return wanted.run.name in registry.models()
    except NotFoundError:  # nothing was tracked yet
        return False
    except UnreachableError as error:
        form = f"{wanted.run.run_id}/{wanted.number}"
        raise UnreachableError(f"{error}; the trial of the run is {form}, for which no registry is asked") from error


def _version(name: str, home: Home, profile: str | None) -> Source:
    with open_registry(home=home, profile=profile) as registry:
        version = registry.resolve(name)
        kept = home.cache / "adapters" / version.run_id / _plain(f"{version.model}-{version.version}")
        if not kept.is_dir():
            _fetch(registry, version, kept)
    return Source(f"{version.model}/{version.version}", kept, AdapterCard.read(kept))


@contextmanager
def open_registry(*, home: Home | None = None, profile: str | None = None) -> Iterator[Registry]:
    """The profile's registry. Within, the profile's secrets are in the environment, where MLflow looks for them.

    Its errors come out as NotFoundError, ConflictError (the alias has moved meanwhile) and UnreachableError.
    """
    home = home or Home.from_environment()
    place = load_profile(profile, home)
    if not _may_exist(place.tracking_uri):
        raise NotFoundError(f"no model is registered: nothing was tracked yet at {place.tracking_uri}")
    try:
        with place.secrets_at_hand():
            # MLflow, which takes seconds to load: not for those who only name a folder.
            from storage.registry import Registry

            yield Registry(place.tracking_uri)
    except NotRegisteredError as error:
        raise NotFoundError(str(error)) from error
    except ChampionMovedError as error:
        raise ConflictError(str(error)) from error
    except RegistryUnreachableError as error:
        raise UnreachableError(str(error)) from error


def _fetch(registry: Registry, version: Version, kept: Path) -> None:
    """Under another name first: two at once, or a kill, leave no half of it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{os.getpid()}-") as scratch:
        folder = registry.download(version, Path(scratch))
        try:
            folder.rename(kept)
        except OSError:
            if not kept.is_dir():  # another process was not quicker either
                raise
            shutil.rmtree(folder, ignore_errors=True)


def _may_exist(uri: str) -> bool:
    """False for a sqlite file that is not there: asking MLflow would lay out an empty one, in seconds."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists()


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
