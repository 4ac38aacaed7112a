"""What can be fetched, and where it is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Source = Literal["hub", "modelscope"]
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True)
class Wanted:
    """A model, or a data set."""

    kind: Literal["model", "data"]
    id: str
    """`org/name`."""
    revision: str | None = None
    """A commit, tag or branch; None: the repository's default branch."""
    source: Source = "hub"
    config: str | None = None
    """Of a data set that has several."""

    @property
    def name(self) -> str:
        """For people: `Qwen/Qwen2.5-1.5B @ v1 (ModelScope)`."""
        config = f" ({self.config})" if self.config else ""
        revision = f" @ {self.revision}" if self.revision else ""
        return f"{self.id}{config}{revision}{' (ModelScope)' if self.source == 'modelscope' else ''}"

    @property
    def store(self) -> Path:
        """The folder that holds all revisions of it."""
        plain = self.id.replace("/", "--")
        if self.source == "modelscope":
            return _modelscope_cache() / "models" / plain
        return hub_cache() / f"{'models' if self.kind == 'model' else 'datasets'}--{plain}"


def offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE); of ModelScope too: it is one wish."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in _TRUE


def hub_cache() -> Path:
    """The hub client's own cache, found as it finds it, without loading it."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(name):
            return _absolute(given)
    home = os.environ.get("HF_HOME")
    return (_absolute(home) if home else _user_cache() / "huggingface") / "hub"


def _modelscope_cache() -> Path:
    given = os.environ.get("MODELSCOPE_CACHE")
    return _absolute(given) if given else _user_cache() / "modelscope"


def _user_cache() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return _absolute(given) if given else Path.home() / ".cache"


def _absolute(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()
