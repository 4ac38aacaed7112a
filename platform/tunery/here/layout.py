"""Where the small cluster of this machine is kept.

TUNERY_HOME/cluster/          0700: nobody else looks in
    cluster.json              what was started, on which ports: see `kept`
    lock                      held by the one `up` or `down` that is at work
    config.toml               the cluster's own profile, for what runs on it
    profile.toml              the profile `here`, for what sends to it
    secrets/                  files of mode 0600
    logs/                     one a part; Ray's own are below ray/
    home/                     the TUNERY_HOME of what runs on it
    mlflow/  postgres/  ray/  data
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunery.errors import UnreachableError
from tunery.home import Home

SECRET_BYTES = 32


@dataclass(frozen=True)
class Layout:
    """The paths below one folder. Nothing is created until it is written to."""

    root: Path

    @classmethod
    def of(cls, home: Home) -> Layout:
        return cls(home.cluster)

    @property
    def kept(self) -> Path:
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def profile(self) -> Path:
        return self.root / "profile.toml"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    def log(self, part: str) -> Path:
        """What a part prints."""
        return self.root / "logs" / f"{part}.log"

    def make(self) -> None:
        """The folders. UnreachableError where they cannot be."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.secrets, self.root / "logs", self.home.root):
                folder.mkdir(mode=0o700, exist_ok=True)
            self.root.chmod(0o700)
        except OSError as error:
            raise UnreachableError(
                f"{self.root} cannot be made: {error.strerror}; set TUNERY_HOME elsewhere"
            ) from error

    def secret_file(self, name: str) -> Path:
        return self.secrets / name

    def secret(self, name: str, value: str | None = None) -> str:
        """The secret of that name: made at first, the same ever after. `value`: it is this one, and not drawn."""
        file = self.secret_file(name)
        if value is None and file.exists():
            return file.read_text(encoding="utf-8")
        value = value or secrets.token_urlsafe(SECRET_BYTES)
        write_private(file, value)
        return value


def write_private(file: Path, text: str) -> None:
    """Replace a file, which only its owner may read from its first moment on."""
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)
    part.replace(file)


def toml_table(name: str, values: Mapping[str, str], files: Mapping[str, Path], s3: Mapping[str, str]) -> str:
    """A profile in TOML: its keys, its secrets with the files that hold them, and how its bucket is reached."""
    lines = [f"[profiles.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    if s3:
        lines += ["", f"[profiles.{name}.s3]", *(f"{key} = {json.dumps(value)}" for key, value in s3.items())]
    if files:
        lines += ["", f"[profiles.{name}.secrets]"]
        lines += [f"{key} = {{file = {json.dumps(str(file))}}}" for key, file in files.items()]
    return "\n".join(lines) + "\n"
