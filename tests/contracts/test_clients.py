"""What holds for every target that plans can be sent to, because it is there."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from tunery import client
from tunery.client import Client
from tunery.errors import ProfileError
from tunery.home import Home
from tunery.profile import load_profile

OPERATIONS = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("name", client.names())
def test_a_target_connects_to_a_client_with_every_operation(name: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    profile = load_profile("local", home).model_copy(update={"target": name})
    made = client.client_for(profile, home)
    assert OPERATIONS
    for operation in OPERATIONS:
        expected = inspect.signature(getattr(Client, operation)).parameters
        found = inspect.signature(getattr(type(made), operation)).parameters
        assert list(found) == list(expected), operation
    assert importlib.import_module(f"tunery.client.{name}").__doc__


def test_local_is_a_target_and_helpers_are_none() -> None:
    assert "local" in client.names()
    assert not [name for name in client.names() if name.startswith("_")]


def test_an_unknown_target_is_a_mistake_in_the_profile(tmp_path: Path) -> None:
    home = Home(tmp_path)
    profile = load_profile("local", home).model_copy(update={"target": "moon"})
    with pytest.raises(ProfileError, match="unknown target 'moon' in the profile; known: local"):
        client.client_for(profile, home)
