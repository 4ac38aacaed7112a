"""What the manifests tell MLflow and Postgres to do, done on this machine with their own commands and files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.manifests import Manifest, name
from tests.servers import PATIENCE_S, free_ports
from tunery import mirrored
from tunery.here import postgres

Places = Callable[[str], list[Manifest]]
Words = list[str | Path]
PASSWORDS = {"postgres": "of-the-superuser", "mlflow": "of-mlflow's tables", "optuna": "of-optuna's"}
FILES = {"postgres-password": PASSWORDS["mlflow"], "admin-password": "of-the-first-admin", "session-key": "s" * 64}
ADMIN = ("admin", FILES["admin-password"])

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="no Postgres on this machine: install postgresql")


@dataclass(frozen=True)
class Machine:
    """Where on this machine is what the pods have elsewhere."""

    folder: Path
    database: int
    """Port of Postgres."""
    mlflow: int
    """Port of MLflow."""

    def put(self, text: str) -> str:
        """The pods' paths, names and ports as they are here."""
        for theirs, ours in {
            "/run/secrets/mlflow": str(self.folder / "secrets"),
            "/run/secrets/postgres": str(self.folder / "passwords"),
            "/etc/mlflow": str(self.folder),
            "@postgres:5432": f"@127.0.0.1:{self.database}",
            "--host 0.0.0.0 --port 5000": f"--host 127.0.0.1 --port {self.mlflow}",
            "localhost:5000": f"localhost:{self.mlflow}",
        }.items():
            text = text.replace(theirs, ours)
        return text


@pytest.fixture(scope="module")
def gpu(places: Places) -> Mapping[str, Manifest]:
    return {name(each): each for each in places("gpu")}


@pytest.fixture(scope="module")
def machine(gpu: Mapping[str, Manifest]) -> Iterator[Machine]:
    """With a new Postgres, on which the init script has run."""
    # No folder of pytest's: Postgres refuses root, and no other user may enter those of root.
    folder = Path(tempfile.mkdtemp(prefix="tunery-services-"))
    made = Machine(folder, *free_ports(2))
    for inside, files in (("secrets", FILES), ("passwords", PASSWORDS)):
        (folder / inside).mkdir()
        for file, value in files.items():
            (folder / inside / file).write_text(value)
    (folder / "basic_auth.ini").write_text(made.put(gpu["ConfigMap/mlflow-auth"]["data"]["basic_auth.ini"]))
    (folder / "init.sql").write_text(made.put(gpu["ConfigMap/postgres-init"]["data"]["init.sql"]))
    user = postgres.SYSTEM_USER if os.getuid() == 0 else None
    if user is not None:
        folder.chmod(0o755)
        (folder / "database").mkdir()
        shutil.chown(folder / "database", user, user)
    programs = postgres.programs()
    assert programs is not None
    try:
        with _database(made, programs, user):
            yield made
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _database(machine: Machine, programs: Path, user: str | None) -> Iterator[None]:
    data, log = machine.folder / "database" / "data", machine.folder / "postgres.log"
    as_user: dict[str, Any] = {"user": user, "group": user, "extra_groups": ()} if user else {}
    password = machine.folder / "passwords" / "postgres"
    at: Words = ["-h", "127.0.0.1", "-p", str(machine.database), "-U", "postgres"]
    laid_out: Words = [programs / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--auth=scram-sha-256"]
    subprocess.run([*laid_out, f"--pwfile={password}"], check=True, capture_output=True, cwd="/", **as_user)
    options = {"listen_addresses": "127.0.0.1", "port": machine.database, "unix_socket_directories": ""}
    serving: Words = [programs / "postgres", "-D", data, *(w for k, v in options.items() for w in ("-c", f"{k}={v}"))]
    with log.open("wb") as file:
        process = subprocess.Popen(serving, stdout=file, stderr=file, cwd="/", **as_user)
    try:
        _until(lambda: subprocess.run([programs / "pg_isready", "-q", *at], check=False).returncode == 0, log)
        command: Words = [programs / "psql", *at, "-v", "ON_ERROR_STOP=1", "-f", machine.folder / "init.sql"]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PGPASSWORD": PASSWORDS["postgres"]}
        )
        assert done.returncode == 0, done.stderr
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _until(well: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not well():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _container(manifest: Manifest) -> Manifest:
    container: Manifest = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


def _command(gpu: Mapping[str, Manifest], whose: str, machine: Machine) -> tuple[list[str], dict[str, str]]:
    """A container's command and its environment, as they are on this machine."""
    container = _container(gpu[whose])
    command = [machine.put(word) for word in (*container["command"], *container["args"])]
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = {"PATH": programs, "HOME": str(machine.folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    for source in container["envFrom"]:
        found |= gpu[f"ConfigMap/{source['configMapRef']['name']}"]["data"]
    found |= {each["name"]: machine.put(each["value"]) for each in container.get("env", ())}
    return command, found | {"MLFLOW_ARTIFACTS_DESTINATION": str(machine.folder / "artifacts")}


@pytest.fixture(scope="module")
def migrated(gpu: Mapping[str, Manifest], machine: Machine) -> list[subprocess.CompletedProcess[str]]:
    """The Job, twice: as it is at an upgrade that changes nothing."""
    command, environment = _command(gpu, "Job/mlflow-migrate", machine)
    return [subprocess.run(command, capture_output=True, text=True, env=environment, check=False) for _ in range(2)]


@pytest.fixture(scope="module")
def mlflow(
    gpu: Mapping[str, Manifest], machine: Machine, migrated: list[subprocess.CompletedProcess[str]]
) -> Iterator[httpx.Client]:
    """Who asks the server, once it is healthy."""
    assert migrated
    command, environment = _command(gpu, "Deployment/mlflow", machine)
    url, log = f"http://localhost:{machine.mlflow}", machine.folder / "mlflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)

    def healthy() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        return False

    try:
        _until(healthy, log)
        # Each worker opens its stores for the first request that it lets in: on a busy machine that takes long.
        with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
            yield client
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it and its workers: a session of their own
        process.wait()


def test_the_database_is_brought_up_to_date_and_a_second_time_does_no_harm(
    migrated: list[subprocess.CompletedProcess[str]],
) -> None:
    for done in migrated:
        assert done.returncode == 0, done.stderr


API = "/api/2.0/mlflow"
SEARCH = f"{API}/experiments/search?max_results=10"


def test_who_says_no_name_is_not_let_in_and_the_admin_is(mlflow: httpx.Client) -> None:
    assert mlflow.get(SEARCH).status_code == 401
    assert mlflow.get(SEARCH, auth=("admin", "a-guess")).status_code == 401
    assert mlflow.get(SEARCH, auth=ADMIN).status_code == 200


@pytest.mark.parametrize("headers", [{"Host": "evil.example.org"}, {"Host": "localhost:1"}])
def test_another_host_is_refused_even_with_a_password(mlflow: httpx.Client, headers: dict[str, str]) -> None:
    assert mlflow.get(SEARCH, auth=ADMIN, headers=headers).status_code == 403


def test_another_origin_changes_nothing(mlflow: httpx.Client) -> None:
    body, headers = {"name": "theirs"}, {"Origin": "https://evil.example.org"}
    made = mlflow.post(f"{API}/experiments/create", json=body, headers=headers, auth=ADMIN)
    assert made.status_code == 403


def test_the_clusters_user_makes_the_experiment_of_runs_and_another_is_let_in(mlflow: httpx.Client) -> None:
    cluster, submits = (("tunery", "a-password-of-the-cluster"), ("bob", "a-password-of-bob"))
    for user, password in (cluster, submits):
        made = mlflow.post(f"{API}/users/create", json={"username": user, "password": password}, auth=ADMIN)
        assert made.status_code == 200, made.text
    made = mlflow.post(f"{API}/experiments/create", json={"name": mirrored.EXPERIMENT}, auth=cluster)
    assert made.status_code == 200, made.text
    asked = {"experiment_id": made.json()["experiment_id"]}
    granted = {"username": submits[0], "resource_type": "experiment", "resource_id": asked["experiment_id"]}
    seen = []
    for permission in (None, "READ"):
        if permission is not None:
            grant = mlflow.post(
                "/api/3.0/mlflow/users/permissions/grant", json=granted | {"permission": permission}, auth=ADMIN
            )
            assert grant.status_code == 200, grant.text
        looks = mlflow.get(f"{API}/experiments/get", params=asked, auth=submits)
        begins = mlflow.post(f"{API}/runs/create", json=asked, auth=submits)
        seen.append((looks.status_code, begins.status_code))
    assert seen == [(403, 403), (200, 403)]
    assert mlflow.post(f"{API}/runs/create", json=asked, auth=cluster).status_code == 200


def test_a_user_sees_nothing_of_anothers(mlflow: httpx.Client) -> None:
    made = mlflow.post(f"{API}/experiments/create", json={"name": "admins"}, auth=ADMIN)
    assert made.status_code == 200, made.text
    ann = {"username": "ann", "password": "a-password-of-ann"}
    assert mlflow.post(f"{API}/users/create", json=ann, auth=ADMIN).status_code == 200
    auth = (ann["username"], ann["password"])
    assert mlflow.get(SEARCH, auth=auth).json().get("experiments", []) == []
    found = mlflow.get(f"{API}/experiments/get", params={"experiment_id": made.json()["experiment_id"]}, auth=auth)
    assert found.status_code == 403
