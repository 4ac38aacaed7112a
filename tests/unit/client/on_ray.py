"""A Ray cluster's Jobs API, its tracking server and a laptop that knows them, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stand_ins import ray_jobs
from tests.stand_ins import tracking as tracking_stand_in
from tests.stand_ins.at_work import Supervisors, Work, at_work
from tests.stand_ins.ray_jobs import JobsApi
from tests.stand_ins.tracking import Tracking
from tests.unit.client.on_kubernetes import impatient
from tunery.client import Client, client_for
from tunery.home import Home
from tunery.profile import load_profile


@dataclass
class RayPlace:
    """A cluster, its tracking server, and a laptop that knows them."""

    api: JobsApi
    tracking: Tracking
    folder: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    def client(self) -> Client:
        return client_for(load_profile(None, self.home), self.home)

    def at_work(self) -> AbstractContextManager[Work]:
        """Ray works, and the jobs do."""
        return at_work(Supervisors(self.api), self.tracking)

    def configure(self, *, ca: Path | None = None) -> None:
        trusted = f'ca = "{ca}"\n' if ca else ""
        (self.folder / "config.toml").write_text(
            f'default = "team"\n[profiles.team]\ntarget = "ray"\njobs = "{self.api.url}"\n'
            f'tracking_uri = "{self.tracking.url}"\n{trusted}'
            '[profiles.team.secrets]\nRAY_AUTH_TOKEN = {env = "TEAM_RAY_TOKEN"}\n'
        )


@contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Iterator[RayPlace]:
    """Both servers, and a profile without a `ca`; `certificate`: over TLS."""
    with ExitStack() as stack:
        api = stack.enter_context(ray_jobs.serving(JobsApi(), certificate))
        tracking = stack.enter_context(tracking_stand_in.serving(Tracking(), certificate))
        place = RayPlace(api, tracking, folder)
        place.configure()
        yield place


@pytest.fixture
def ray_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all that a user has here, who knows the token."""
    impatient(monkeypatch)
    monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEAM_RAY_TOKEN", JobsApi().token)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    return tmp_path


@pytest.fixture
def ray_place(ray_laptop: Path) -> Iterator[RayPlace]:
    with serving(ray_laptop) as place:
        yield place
