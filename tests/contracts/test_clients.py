"""What holds for every target that plans can be sent to, because it is there."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.stand_ins.at_work import Work
from tests.unit.client.conftest import home, place, ray_laptop, ray_place, template
from tests.unit.client.fake_driver import AT_WORK
from tests.unit.client.fakes import FAKE_DRIVER, make_plan, wait_for
from tests.unit.client.on_kubernetes import Place
from tests.unit.client.on_ray import RayPlace
from tunery import client
from tunery.client import Client
from tunery.client.local import LocalClient
from tunery.errors import ConflictError, NotFoundError, ProfileError
from tunery.home import Home
from tunery.profile import load_profile
from tunery.report.result import exit_code
from tunery.runs import RunFolder, RunStatus

__all__ = ["home", "place", "ray_laptop", "ray_place", "template"]  # fixtures are found here

OPERATIONS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]


PROFILES = {
    "local": "",
    "kubernetes": (
        'target = "kubernetes"\ntracking_uri = "http://127.0.0.1:9"\n'
        '[profiles.here.kubernetes]\nkubeconfig = "/no/such/file"\n'
    ),
    "ray": 'target = "ray"\njobs = "http://127.0.0.1:9"\ntracking_uri = "http://127.0.0.1:9"\n',
}
"""What a profile says for each target. Port 9 (discard) of this machine: nobody listens there."""


@pytest.fixture
def connected(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[client.Client, Home]:
    config = tmp_path / "config.toml"
    config.write_text(f"[profiles.here]\n{PROFILES[request.param]}")
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    home = Home(tmp_path / "home")
    return client.client_for(load_profile("here", home), home), home


@pytest.mark.usefixtures("kubectl_on_path")
@pytest.mark.parametrize("connected", client.names(), indirect=True)
def test_what_would_be_sent_is_told_without_contacting_or_writing_anything(
    connected: tuple[client.Client, Home],
) -> None:
    made, home = connected
    plan = make_plan()
    preview, offline = made.preview(plan), made.preview(plan, offline=True)
    assert preview == made.preview(plan), "it is the same each time"
    assert plan.run_id in json.dumps([preview.to, preview.content])
    assert preview.content != offline.content
    assert not home.root.exists()


@pytest.mark.parametrize(("name", "connected"), [(name, name) for name in client.names()], indirect=["connected"])
def test_a_target_connects_to_a_client_with_every_operation(name: str, connected: tuple[client.Client, Home]) -> None:
    made, _ = connected
    assert OPERATIONS
    for operation in OPERATIONS:
        expected = inspect.signature(getattr(Client, operation)).parameters
        found = inspect.signature(getattr(type(made), operation)).parameters
        assert list(found) == list(expected), operation
    assert importlib.import_module(f"tunery.client.{name}").__doc__


def test_a_client_of_a_cluster_needs_its_address(tmp_path: Path) -> None:
    profile = load_profile("local", Home(tmp_path)).model_copy(update={"target": "ray"})
    with pytest.raises(ProfileError, match="profile 'local' has target 'ray' and no `jobs`"):
        client.client_for(profile, Home(tmp_path))


def test_local_is_a_target_and_helpers_are_none() -> None:
    assert set(client.names()) == set(PROFILES)
    assert not [name for name in client.names() if name.startswith("_")]


def test_an_unknown_target_is_a_mistake_in_the_profile(tmp_path: Path) -> None:
    home = Home(tmp_path)
    profile = load_profile("local", home).model_copy(update={"target": "moon"})
    with pytest.raises(ProfileError, match="unknown target 'moon' in the profile; known: kubernetes, local, ray"):
        client.client_for(profile, home)


# -- what becomes of a run, wherever it is ---------------------------------------------------------------------

PLAN = make_plan()
RUN = PLAN.run_id


class Target(Protocol):
    """A place where runs work, and go on until something ends them."""

    def client(self) -> Client:
        """A new one, as each command has."""

    def ends(self, run: str, status: RunStatus) -> None:
        """From now on the run ends so by itself."""


@dataclass(frozen=True)
class OnThisMachine:
    home: Home

    def client(self) -> Client:
        return LocalClient(self.home, driver_command=FAKE_DRIVER)

    def ends(self, run: str, status: RunStatus) -> None:
        folder = RunFolder(self.home.runs / run)
        asks = {"finished": folder.root / "finish", "failed": folder.root / "fail", "stopped": folder.stop_file}
        for file in asks.values():
            file.unlink(missing_ok=True)
        asks[status].touch()


@dataclass(frozen=True)
class OnACluster:
    place: Place | RayPlace
    work: Work

    def client(self) -> Client:
        return self.place.client()

    def ends(self, run: str, status: RunStatus) -> None:
        self.work.ends[run] = status


@pytest.fixture
def local(home: Home) -> Target:
    return OnThisMachine(home)


@pytest.fixture
def kubernetes(place: Place) -> Iterator[Target]:
    with place.at_work() as work:
        yield OnACluster(place, work)


@pytest.fixture
def ray(ray_place: RayPlace) -> Iterator[Target]:
    with ray_place.at_work() as work:
        yield OnACluster(ray_place, work)


@pytest.fixture(params=client.names())
def target(request: pytest.FixtureRequest) -> Target:
    """Each that there is: one without a fixture of its name here fails."""
    found: Target = request.getfixturevalue(request.param)
    return found


def begun(target: Target) -> Client:
    """A client that has sent the plan, whose run is under way."""
    made = target.client()
    assert (made.send(PLAN).run_id, made.state(RUN).name) == (RUN, "glue")
    wait_for(lambda: made.state(RUN).status == "running")
    return made


def test_a_plan_that_is_sent_again_finds_its_run(target: Target) -> None:
    first = target.client()
    with pytest.raises(NotFoundError, match="no run 'glue'"):
        first.find("glue")
    assert first.runs() == ()
    assert (first.send(PLAN).outcome, first.send(PLAN).outcome) == ("started", "attached")
    wait_for(lambda: first.state(RUN).status == "running")
    again = target.client()
    assert again.send(PLAN) == client.JobHandle(RUN, "attached")
    assert again.find("glue") == again.find(RUN[:6]) == RUN
    assert [state.run_id for state in again.runs()] == [RUN]
    assert again.plan(RUN) == PLAN
    assert again.resume(RUN).outcome == "attached"
    with pytest.raises(ConflictError, match="another content"):
        again.send(make_plan(tasks=("sst2",)))
    with pytest.raises(ConflictError, match="under way"):
        again.send(PLAN, fresh=True)
    assert next(again.watch(RUN)).status == "running"


@pytest.mark.parametrize(
    ("status", "code", "outcome"), [("finished", 0, "finished"), ("failed", 5, "ended"), ("stopped", 130, "ended")]
)
def test_a_run_ends_and_stays_ended(status: RunStatus, code: int, outcome: client.Outcome, target: Target) -> None:
    made = begun(target)
    watched = made.watch(RUN)
    assert next(watched).status == "running"
    target.ends(RUN, status)
    assert [state.status for state in watched][-1] == status
    state = made.state(RUN)
    assert (state.status, exit_code(state.status)) == (status, code)
    assert state.error == ("every trial of cola failed" if status == "failed" else "")
    assert made.send(PLAN) == client.JobHandle(RUN, outcome)
    assert list(made.log(RUN, follow=True)) == [AT_WORK]
    assert made.stop(RUN).status == status, "there is nothing to stop"
    fresh = target.client().send(PLAN, fresh=True)
    assert fresh == client.JobHandle(f"{RUN}.2", "started")
    target.ends(fresh.run_id, "finished")


@pytest.mark.parametrize("before", ["failed", "stopped"])
def test_a_run_that_has_ended_goes_on_when_asked_to(before: RunStatus, target: Target) -> None:
    made = begun(target)
    if before == "stopped":
        assert made.stop(RUN).status == "stopped"
    else:
        target.ends(RUN, before)
        assert [state.status for state in made.watch(RUN)][-1] == before
    target.ends(RUN, "finished")
    assert target.client().resume(RUN) == client.JobHandle(RUN, "resumed")
    assert [state.status for state in made.watch(RUN)][-1] == "finished"
    assert made.resume(RUN).outcome == "finished"
    assert set(made.log(RUN)) == {AT_WORK}


def test_a_log_that_is_followed_ends_with_its_run(target: Target) -> None:
    made = begun(target)
    lines = made.log(RUN, follow=True)
    assert next(lines) == AT_WORK
    assert target.client().stop(RUN).status == "stopped"
    assert list(lines) == []
    with pytest.raises(NotFoundError, match="no trial 3"):
        list(made.log(RUN, trial=3))
