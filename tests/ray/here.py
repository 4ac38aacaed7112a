"""A cluster that `platform up` makes of this machine, and a laptop that sends its sweeps there."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from pyarrow import fs

from storage.files import write_whole
from storage.stores import Address
from tests.object_store import BUCKET, OWNER, ObjectStore
from tests.ray.conftest import rows
from tunery import mirrored
from tunery.here import postgres
from tunery.here.kept import Kept, load
from tunery.here.layout import Layout
from tunery.home import Home

SHORT_EPOCHS, LONG_EPOCHS = 3, 48
LONG: dict[str, Any] = {
    "search__trials": 2,
    "search__sampler": {"name": "grid"},
    "search__space": {"train.epochs": {"choice": [SHORT_EPOCHS, LONG_EPOCHS]}},
    "train__batch_size": 2,
}
"""One trial ends soon, and the other is under way for as long as a test has things to do to it."""

PARTS = [*(["postgres"] if postgres.programs() else []), "mlflow", "ray-head", "ray-node-1"]
NODES = ["ray-head", "ray-node-1"]


@dataclass
class Here:
    """This machine, as its user sees it."""

    home: Home
    environment: dict[str, str]
    folder: Path
    store: Address
    """Where artifacts and checkpoints go."""
    objects: ObjectStore
    """Who keeps them."""
    seen: set[str] = field(default_factory=set)
    """Command lines of processes, of all users, while a sweep was under way."""

    def platform(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tunery.cli.app", *words]
        return subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )

    def document(self, *words: str, code: int = 0) -> dict[str, Any]:
        done = self.platform(*words, "-o", "json")
        assert done.returncode == code, (done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @property
    def layout(self) -> Layout:
        return Layout.of(self.home)

    @property
    def kept(self) -> Kept:
        kept = load(self.layout)
        assert kept is not None
        return kept

    def url(self, part: str, port: str) -> str:
        return f"http://127.0.0.1:{self.kept.ports[part][port]}"

    @property
    def token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.layout.secret('ray-token')}"}

    @property
    def login(self) -> tuple[str, str]:
        return "tunery", self.layout.secret("mlflow-password")

    def administer(self, path: str, **body: object) -> dict[str, Any]:
        """What MLflow answers to its administrator."""
        url = f"{self.url('mlflow', 'mlflow')}/api/{path}"
        answer = httpx.post(url, auth=self.login, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def grant(self, user: str, right: str, *, anew: bool = False) -> None:
        """A right to the experiment that tells of runs; `anew`: in place of the one that the user had."""
        named = f"name = '{mirrored.EXPERIMENT}'"
        (experiment,) = self.administer("2.0/mlflow/experiments/search", filter=named, max_results=2)["experiments"]
        what = {"username": user, "resource_type": "experiment", "resource_id": experiment["experiment_id"]}
        if anew:
            self.administer("3.0/mlflow/users/permissions/revoke", **what)
        self.administer("3.0/mlflow/users/permissions/grant", **what, permission=right)

    @property
    def jobs(self) -> str:
        return self.url("ray-head", "dashboard")

    def job(self, job: str) -> dict[str, Any]:
        """What the Jobs API says of one, asked without the client."""
        found: dict[str, Any] = httpx.get(f"{self.jobs}/api/jobs/{job}", headers=self.token, timeout=60).json()
        return found

    def look_around(self) -> None:
        self.seen.update(" ".join(_words(process)) for process in psutil.process_iter())

    def processes(self) -> list[int]:
        """Those with the cluster's home, or its own below it, in their environment."""
        homes = {str(self.home.root), str(self.layout.home.root)}
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != "zombie" and process.environ().get("TUNERY_HOME") in homes:
                    found.append(process.pid)
            except psutil.Error:
                continue  # gone meanwhile, or the kernel's
        return found

    def lose(self, part: str) -> None:
        """SIGKILL to a part and all that it has started, as when its machine goes."""
        for process in self._all_of(part):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def listening(self, part: str) -> dict[str, str]:
        """URL -> the command line of who listens there, of a part and all that it has started."""
        return {
            f"http://{_reached(address.ip)}:{address.port}": " ".join(_words(process))
            for process in self._all_of(part)
            for address in _listening(process)
        }

    def _all_of(self, part: str) -> list[psutil.Process]:
        main = psutil.Process(self.kept.processes[part].pid)
        return [main, *main.children(recursive=True)]

    def conditions(self) -> dict[str, str]:
        """Part -> how it is, where one is not well."""
        return {each["part"]: each["condition"] for each in self.document("ps", code=6)["parts"]}

    def objects_below(self, name: str) -> list[str]:
        below = f"{str(self.store).removeprefix('s3://')}/{name}"
        found = self.objects.files().get_file_info(fs.FileSelector(below, recursive=True, allow_not_found=True))
        return [each.path for each in found if each.type == fs.FileType.File]

    def secrets(self) -> dict[str, str]:
        names = ("ray-token", "mlflow-password", "mlflow-session-key", "postgres-mlflow", "postgres-optuna", "s3-key")
        return {name: self.layout.secret(name) for name in names if self.layout.secret_file(name).exists()}

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        url = postgres.url(database, self.kept.ports["postgres"]["postgres"])
        with psycopg.connect(url, passfile=str(postgres.password_file(self.layout))) as connection:
            return connection.execute(query.encode()).fetchall()

    def holders(self, secret: str) -> list[Path]:
        """Files of the cluster in which it stands."""
        return [file for file in _files(self.home.root) if holds(file.read_bytes(), secret)]

    def kept_elsewhere(self) -> dict[str, bytes]:
        """What is kept in no file of the cluster's: the databases, and every object of the bucket."""
        found = {name: self._dump(name) for name in postgres.DATABASES} if self.kept.database == "postgres" else {}
        files = self.objects.files()
        for each in files.get_file_info(fs.FileSelector(BUCKET, recursive=True)):
            if each.type == fs.FileType.File:
                with files.open_input_stream(each.path) as stream:
                    found[each.path] = stream.read()
        return found

    def _dump(self, database: str) -> bytes:
        folder = postgres.programs()
        assert folder is not None
        url = postgres.url(database, self.kept.ports["postgres"]["postgres"])
        environment = os.environ | {"PGPASSFILE": str(postgres.password_file(self.layout))}
        done = subprocess.run([str(folder / "pg_dump"), url], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def brought_up(folder: Path, object_store: ObjectStore) -> Iterator[Here]:
    """A cluster of two nodes, with all of its own, and data, below the folder; at the end it is down."""
    for split, count in (("train", 96), ("validation", 32)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, len(split)))
        write_whole(folder / "data" / "cola" / f"{split}.jsonl", lines.encode())
    environment = os.environ | {
        "TUNERY_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("TUNERY_CONFIG", None)
    store = object_store.address()
    made = Here(Home(folder / "home"), environment, folder, store, object_store)
    try:
        made.environment |= {**OWNER.environment, "AWS_ENDPOINT_URL": object_store.endpoint}
        brought = made.document("up", "--workers", "1", "--cpus", "2", "--store", str(store))
        for name in (*OWNER.environment, "AWS_ENDPOINT_URL"):
            del made.environment[name]  # from here on the cluster knows
        assert brought["started"], brought
        yield made
    finally:
        made.platform("down")
        kept = load(made.layout)
        if kept is not None and kept.postgres_data:
            shutil.rmtree(kept.postgres_data, ignore_errors=True)


def holds(content: bytes, text: str) -> bool:
    """Whether it stands there: a dump has bytes as hexadecimal digits, and a workbook is an archive."""
    if any(each in content for each in (text.encode(), text.encode().hex().encode())):
        return True
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return any(holds(archive.read(name), text) for name in archive.namelist())


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _listening(process: psutil.Process) -> list[Any]:
    try:
        found = process.net_connections("tcp")
    except psutil.Error:
        return []  # it has ended meanwhile
    return [each.laddr for each in found if each.status == psutil.CONN_LISTEN]


def _reached(ip: str) -> str:
    return "127.0.0.1" if ip in ("0.0.0.0", "::") else ip.removeprefix("::ffff:")


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder) / name
            if file.is_file():
                yield file
