"""From what a user calls a model to a folder with its files. Loads neither torch nor, for a folder, MLflow."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import ChampionMovedError, NotRegisteredError, RegistryUnreachableError
from tunery.errors import ConflictError, NotFoundError, UnreachableError
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.profile import load_profile

if TYPE_CHECKING:
    from storage.registry import Registry, Version


@dataclass(frozen=True)
class Source:
    """A model's files."""

    name: str
    """`glue-cola/3` for a registered version, else the folder as it was given."""
    folder: Path
    card: AdapterCard


def locate(model: str | Path, *, home: Home | None = None, profile: str | None = None) -> Source:
    """The files of `name@alias`, `name/3`, `name` (its champion), or of a folder that holds an adapter.

    A registered version's files are copied once, under the home's cache. Raises NotFoundError, saying what there is,
    and UnreachableError where the registry does not answer.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Source(str(model), folder, AdapterCard.read(folder))
    if isinstance(model, Path) or model.startswith(("/", "./", "../", "~")):
        raise NotFoundError(f"no folder {folder}")
    home = home or Home.from_environment()
    with open_registry(home=home, profile=profile) as registry:
        version = registry.resolve(str(model))
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
    before = dict(os.environ)
    os.environ.update(place.environment())
    try:
        # MLflow, which takes seconds to load: not for those who only name a folder.
        from storage.registry import Registry

        yield Registry(place.tracking_uri)
    except NotRegisteredError as error:
        raise NotFoundError(str(error)) from error
    except ChampionMovedError as error:
        raise ConflictError(str(error)) from error
    except RegistryUnreachableError as error:
        raise UnreachableError(str(error)) from error
    finally:
        for name in place.secrets:
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})


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
