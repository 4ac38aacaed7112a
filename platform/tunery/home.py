"""Where the embedded state lives (`TUNERY_HOME`, by default `~/.tunery`), and whose it is."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from pathlib import Path


def who() -> str:
    """The user, as histories name one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as containers have
        return "unknown"


@dataclass(frozen=True)
class Home:
    """The folders of the embedded state. Nothing is created until it is written to."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        return cls(Path(os.environ.get("TUNERY_HOME") or Path.home() / ".tunery").expanduser().resolve())

    @property
    def runs(self) -> Path:
        """One folder a run: see `tunery.runs`."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """Token files and downloads; safe to delete while nothing runs."""
        return self.root / "cache"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts: adapters, specs, plans."""
        return self.root / "artifacts"

    @property
    def cluster(self) -> Path:
        """What `platform up` has made of this machine: see `tunery.here.layout`."""
        return self.root / "cluster"

    @property
    def tracking_uri(self) -> str:
        """MLflow's database (sqlite)."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def study_storage_url(self) -> str:
        """Optuna's database (sqlite)."""
        return f"sqlite:///{self.root / 'optuna.db'}"
