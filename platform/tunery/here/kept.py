"""What is remembered of the cluster between two commands: `cluster.json`."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunery.errors import ConflictError
from tunery.here.layout import Layout, write_private
from tunery.here.processes import Remembered
from tunery.here.store import Store

Database = Literal["postgres", "sqlite"]


class Kept(BaseModel):
    """One cluster. Stored data: what another version has added is passed over."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """In the environment of all its processes."""
    database: Database
    """Where MLflow and Optuna keep their tables: what the cluster began with."""
    postgres_data: str = ""
    """Folder of Postgres's files; empty without Postgres."""
    postgres_made: bool = False
    """Whether these files have been there."""
    store: Store | None = None
    """Of artifacts and checkpoints; None: the cluster's folder."""
    workers: int = 0
    """Ray nodes beside the head."""
    cpus: int
    """Of all nodes together."""
    ports: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)
    """Part -> purpose -> port."""
    processes: Mapping[str, Remembered] = Field(default_factory=dict)
    """Part -> its main process, from its start until it was ended on request."""
    short: str = ""
    """A folder with a short name, which leads to Ray's: the names of its sockets have a limit."""

    def mark(self, part: str) -> str:
        """What all processes of a part have in their environment."""
        return f"{self.id}/{part}"

    def with_process(self, part: str, process: Remembered | None) -> Kept:
        rest = {name: each for name, each in self.processes.items() if name != part}
        return self.model_copy(update={"processes": rest | ({part: process} if process is not None else {})})


def load(layout: Layout) -> Kept | None:
    """None: there is no cluster. ConflictError where the file cannot be read: what it knew is then not known."""
    try:
        text = layout.kept.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConflictError(_damaged(layout, str(error))) from error
    try:
        return Kept.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConflictError(_damaged(layout, f"{where}: {first['msg']}" if where else str(first["msg"]))) from error


def save(layout: Layout, kept: Kept) -> None:
    """Replaced as a whole."""
    write_private(layout.kept, kept.model_dump_json(indent=1) + "\n")


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """One `up` or `down` at a time; the lock goes with its process. ConflictError while another is at work."""
    with layout.lock.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise ConflictError(
                f"another `platform up` or `platform down` is at work on {layout.root} "
                f"(process {handle.read().strip() or 'unknown'}): wait for it, and try again"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _damaged(layout: Layout, why: str) -> str:
    return (
        f"{layout.kept} cannot be read ({why}): which processes and ports were the cluster's is not known. "
        f"`ps` shows processes whose paths lie below {layout.root}: end those, move the file away, "
        "and `platform up` makes another; data, secrets and logs stay"
    )
