"""What Ray's and MLflow's servers answer to, as they themselves say it: no route is forgotten, nor one that comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import ray

from tests.ray.here import Here

LIMIT_S = 60.0

DASHBOARD_OPEN: Mapping[str, str] = {
    "GET /": "the page on which the token is given",
    "GET /favicon.ico": "of that page",
    "GET /static/{file}": "of that page: scripts and pictures of the package",
    "GET /api/authentication_mode": "whether that page asks for a token",
    "GET /api/gcs_healthz": "for probes: whether Ray's control store answers",
}
AGENT_OPEN: Mapping[str, str] = {
    "GET /api/healthz": "for probes: whether the node is well",
    "GET /api/local_raylet_healthz": "for probes, and for `platform ps`",
}
"""What Ray leaves open by design, why, and nothing of it acts. `POST /api/authenticate` takes the token itself."""
MLFLOW_OPEN: Mapping[str, str] = {
    "GET /health": "for probes: whether it answers",
    "GET /static-files/<path:path>": "its pages: scripts and pictures of the package",
    "GET /api/3.0/mlflow/server-info": "what clients ask before they log in: the kind of its store, and what it offers",
    "GET /ajax-api/3.0/mlflow/server-info": "the same, for its pages",
}
"""The same of MLflow."""


@dataclass(frozen=True)
class Route:
    """One that a server has said it answers to."""

    method: str
    path: str
    """As it is declared: {NAME} or <NAME> stands for something."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def asked(self) -> str:
        """A path that leads to it."""
        return re.sub(r"\{[^}]*\}|<[^>]*>", "1", self.path)


def of_cluster(here: Here, nodes: Sequence[str]) -> list[tuple[str, set[Route], Mapping[str, str]]]:
    """Of each HTTP server of Ray's that acts: its address, its routes, and those of them that are open to anybody."""
    logs = here.layout.root / "ray" / "session_latest" / "logs"
    dashboard, agent = (of_ray(logs / name) for name in ("dashboard.log", "dashboard_agent.log"))
    assert {"POST /api/jobs/", "DELETE /api/serve/applications/", "GET /memory_profile"} <= set(map(str, dashboard))
    assert {"POST /api/job_agent/jobs/", "GET /logs/{file}"} <= set(map(str, agent))
    found = [(here.jobs, dashboard, DASHBOARD_OPEN)]
    for node in nodes:
        found.append((here.url(node, "agent"), agent, AGENT_OPEN))
        (url,) = (url for url, words in here.listening(node).items() if "RuntimeEnvAgent" in words)
        found.append((url, of_runtime_env_agent(), {}))
    return found


def of_ray(log: Path) -> set[Route]:
    """What one of Ray's HTTP servers has registered, which it writes into its log when it has begun.

    Left out: what a browser asks before it may ask for something (OPTIONS).
    """
    text = log.read_text()
    found = re.findall(r"<ResourceRoute \[(\w+)\] <(\w+)Resource\s+(\S+?)>? ->", text)
    counted = re.search(r"Registered (\d+) routes", text)
    assert counted is not None, f"{log} names no routes: Ray writes them otherwise now"
    assert len(found) >= int(counted[1]), f"{log} names {len(found)} routes of {counted[1]}"
    files = {"Static": "/{file}"}
    return {Route(method, path + files.get(kind, "")) for method, kind, path in found if method != "OPTIONS"}


def of_runtime_env_agent() -> set[Route]:
    """Of the server on each node that prepares processes: it writes no list, and its source has it."""
    source = Path(ray.__file__).parent / "_private/runtime_env/agent/main.py"
    found = re.findall(r"app\.router\.add_(\w+)\(\s*\"([^\"]+)\"", source.read_text())
    assert found, f"{source} has no routes: Ray writes them otherwise now"
    return {Route(method.upper(), path) for method, path in found}


_MLFLOW = """
import json
from mlflow.server import app
from mlflow.server.auth import create_app

native = create_app(app).openapi()["paths"]
found = [[method.upper(), path] for path, methods in native.items() for method in methods]
found += [[method, rule.rule] for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}]
print(json.dumps(found))
"""


def of_mlflow(folder: Path) -> set[Route]:
    """Of MLflow's server with users: those of its app, and those of the older one below it. `folder`: for scratch."""
    config = folder / "auth.ini"
    config.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = admin\nadmin_password = of no further use\n"
        f"database_uri = sqlite:///{folder}/users.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = os.environ | {
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of no further use",
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", _MLFLOW], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {Route(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])}


def open_to(url: str, routes: Iterable[Route], headers: Mapping[str, str] | None = None) -> set[str]:
    """Those that are not refused to who comes with these headers: without any, who has no token and no login."""
    refused = {HTTPStatus.UNAUTHORIZED} if headers is None else {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    with httpx.Client(base_url=url, headers=dict(headers or {}), timeout=LIMIT_S, trust_env=False) as client:
        return {str(each) for each in routes if client.request(each.method, each.asked).status_code not in refused}
