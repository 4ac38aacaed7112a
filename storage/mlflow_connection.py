"""How MLflow is reached, for everything here that uses it: one client a caller, no global state, bounded calls.

Names of MLflow are imported from this module and not from `mlflow`, because MLflow reads a part of its environment
while it is imported.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import TypeVar
from urllib.parse import urlsplit

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Nothing of ours is a pickle, and what is not ours must not become code.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # MLflow's own retries block for minutes, and a retried POST can create a second run: callers look first, then
    # try again themselves.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # Standard output belongs to the command's own document.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

from mlflow import MlflowClient  # noqa: E402  (after the environment: see above)
from mlflow.entities import Metric, Param, RunTag  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from sqlalchemy import create_engine, text  # noqa: E402  (SQLAlchemy comes with MLflow)
from sqlalchemy.pool import NullPool  # noqa: E402

__all__ = [
    "Metric",
    "MlflowClient",
    "MlflowException",
    "Param",
    "RunTag",
    "connect",
    "is_transient",
    "one_at_a_time",
    "retried",
    "told",
    "without_password",
]

_Result = TypeVar("_Result")
_REFUSALS = frozenset({
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS",
    "ENDPOINT_NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_IMPLEMENTED", "INVALID_STATE", "NOT_FOUND",
})  # fmt: skip


def connect(uri: str) -> MlflowClient:
    """A client of the server or database at `uri`. A new database is laid out first, which takes seconds.

    MlflowException (or SQLAlchemy's) where a database does not answer; a server is not asked yet.
    """
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)  # one line a migration otherwise, some fifty of them
    if not uri.startswith("sqlite:"):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Two processes that lay out one new sqlite file at once make each other fail half way.
    with one_at_a_time(uri, "layout"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)  # the registry's half is made on first use
        return client


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: an outage, a locked database, an overloaded server."""
    return not (isinstance(error, MlflowException) and error.error_code in _REFUSALS)


def retried(call: Callable[[], _Result], *, waits_s: tuple[float, ...] = (0.2, 0.5, 1.0, 2.0)) -> _Result:
    """The result of an idempotent call, tried again after each wait while its failure is transient."""
    for wait_s in waits_s:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            sleep(wait_s)
    return call()


def without_password(uri: str) -> str:
    """`uri` as it may be shown."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def told(error: Exception, uri: str) -> str:
    """The first line of what an error says, without the URI's password."""
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    password = urlsplit(uri).password
    return line.replace(password, "***") if password else line


@contextmanager
def one_at_a_time(uri: str, purpose: str) -> Iterator[None]:
    """One process at a time; the lock goes with the process, however that ends.

    Over a Postgres URI that holds for all machines, over any other for the processes of this one.
    """
    if uri.startswith("postgres"):
        with _advisory_lock(uri, purpose):
            yield
    else:
        with _lock_file(uri, purpose).open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


@contextmanager
def _advisory_lock(uri: str, purpose: str) -> Iterator[None]:
    number = int.from_bytes(hashlib.sha256(f"tunery {purpose}".encode()).digest()[:8], signed=True)
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:number)"), {"number": number})
        yield  # closing the connection releases the lock, as its process's death does


def _lock_file(uri: str, purpose: str) -> Path:
    name = hashlib.sha256(purpose.encode()).hexdigest()[:16]
    database = uri.removeprefix("sqlite:///").partition("?")[0]
    if uri.startswith("sqlite:///") and database:
        folder = Path(database).parent / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{Path(database).name}.{name}"
    # A server has no file to lie beside: one in the temporary folder, for all processes of this user here.
    folder = Path(tempfile.gettempdir()) / f"tunery-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.{name}"
