from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.client.fakes import FAKE_DRIVER
from tests.unit.client.on_kubernetes import place, template
from tests.unit.client.on_ray import ray_laptop, ray_place
from tunery.client.local import LocalClient
from tunery.errors import TuneryError
from tunery.home import Home
from tunery.runs import RunFolder, run_folders

__all__ = ["place", "ray_laptop", "ray_place", "template"]  # fixtures are found here


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose drivers have ended when the test has."""
    made = Home(tmp_path / "home")
    yield made
    client = LocalClient(made)
    for folder in run_folders(made.runs):
        (folder.root / "finish").touch()
        try:
            client.stop(folder.run_id, grace_s=5)
        except TuneryError as error:
            pytest.fail(str(error))


@pytest.fixture
def client(home: Home) -> LocalClient:
    return LocalClient(home, driver_command=FAKE_DRIVER)


@pytest.fixture
def folder_of(home: Home) -> Callable[[str], RunFolder]:
    return lambda run: RunFolder(home.runs / run)
