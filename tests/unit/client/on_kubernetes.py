"""A cluster, its tracking server and a laptop that knows them, over real sockets."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import schemas
from tests.stand_ins import kubernetes_http
from tests.stand_ins import tracking as tracking_stand_in
from tests.stand_ins.at_work import Operator, Work, at_work
from tests.stand_ins.kubernetes import ApiServer
from tests.stand_ins.tracking import Tracking
from tests.unit.client.fakes import make_plan
from tunery.client import Client, _http, _remote, _tracked, client_for
from tunery.client import kubernetes as target
from tunery.home import Home
from tunery.k8s import api, collection, render
from tunery.kube import Kubernetes
from tunery.profile import load_profile

PLAN = make_plan()
RUN = PLAN.run_id
CANARY = "a-secret-of-the-tests"


@dataclass
class Place:
    """A cluster, its tracking server, and a laptop that knows them."""

    server: ApiServer
    tracking: Tracking
    folder: Path
    slept: list[float]

    def client(self, **kubernetes: Any) -> Client:
        self.configure(**kubernetes)
        return self.configured()

    def configured(self) -> Client:
        """As the profile is."""
        return client_for(load_profile(None, self.home), self.home)

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    def configure(self, *, token: str | None = None, ca: Path | None = None, **kubernetes: object) -> None:
        file = kubernetes_http.kubeconfig(self.server, self.folder / "kubeconfig", token=token, ca=ca)
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in kubernetes.items())
        (self.folder / "config.toml").write_text(
            f'default = "team"\n[profiles.team]\ntarget = "kubernetes"\ntracking_uri = "{self.tracking.url}"\n'
            f'[profiles.team.kubernetes]\nkubeconfig = "{file}"\n{more}'
            '[profiles.team.secrets]\nMLFLOW_TRACKING_PASSWORD = {env = "TEAM_PASSWORD"}\n'
        )

    def at_work(self) -> AbstractContextManager[Work]:
        """The operator works, and the jobs do."""
        return at_work(Operator(self.server, self.tracking), self.tracking)

    def jobs(self) -> target.RayJobs:
        profile = load_profile(None, self.home)
        return target.RayJobs(profile, _tracked.Tracked.of(profile, {}))

    def release(self) -> None:
        """The operator lets the only job go."""
        self.server.release(self.job()["metadata"]["name"])

    def job(self) -> dict[str, Any]:
        """The only RayJob there is."""
        (found,) = self.server.jobs().values()
        return found


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of a cluster looks often, and gives up soon."""
    for module in (api, _http):
        monkeypatch.setattr(module, "FIRST_WAITS_S", (0.001,) * 2)
        monkeypatch.setattr(module, "WAITS_S", (0.002,) * 5)
    monkeypatch.setattr(collection, "FRESH_S", 0.0)
    monkeypatch.setattr(_remote, "POLL_S", 0.01)
    monkeypatch.setattr(_tracked, "POLL_S", 0.01)


@pytest.fixture(scope="module")
def template(kubectl: Path) -> dict[str, Any]:
    """What is sent for every run: rendered once, because that takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(kubectl.parent), prepend=":")
        return render.job(Kubernetes())


def strict(manifest: dict[str, Any]) -> list[str]:
    """KubeRay's schemas where they are at hand."""
    return schemas.mistakes(manifest) if manifest["kind"] == "RayJob" and schemas.FOLDER.is_dir() else []


@pytest.fixture
def place(template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(render, "job", lambda _: copy.deepcopy(template))
    impatient(monkeypatch)
    monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEAM_PASSWORD", CANARY)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    slept: list[float] = []
    monkeypatch.setattr(api, "sleep", slept.append)
    with ExitStack() as stack:
        server = stack.enter_context(kubernetes_http.serving(ApiServer(mistakes=strict)))
        server.add("Namespace", "tunery")
        tracking = stack.enter_context(tracking_stand_in.serving(Tracking()))
        yield Place(server, tracking, tmp_path, slept)
