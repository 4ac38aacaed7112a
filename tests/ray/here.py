"""A cluster that `platform up` makes of this machine, and a laptop that sends its sweeps there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from pyarrow import fs

from storage.stores import Address
from tests.object_store import BUCKET, ObjectStore
from tunery.here import postgres
from tunery.here.kept import Kept, load
from tunery.here.layout import Layout
from tunery.home import Home


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

    @property
    def jobs(self) -> str:
        return self.url("ray-head", "dashboard")

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

    def listening(self, part: str) -> dict[int, str]:
        """Port -> the command line of who listens there, of a part and all that it has started."""
        return {
            address.port: " ".join(_words(process)) for process in self._all_of(part) for address in _listening(process)
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
        done = subprocess.run([folder / "pg_dump", url], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


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


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder) / name
            if file.is_file():
                yield file
