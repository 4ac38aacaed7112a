"""What holds for every target that plans can be sent to, because it is there."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest

from tests.unit.client.fakes import make_plan
from tunery import client
from tunery.client import Client
from tunery.errors import ProfileError
from tunery.home import Home
from tunery.profile import load_profile

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
