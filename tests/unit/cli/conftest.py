from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.on_kubernetes import cluster, rendered
from tests.unit.client.fakes import FAKE_DRIVER, SPEC
from tunery.client import local
from tunery.errors import TuneryError
from tunery.home import Home
from tunery.runs import run_folders

__all__ = ["cluster", "rendered"]  # fixtures are found here


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's user is read or written."""
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TUNERY_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A TUNERY_HOME with fake drivers, which have ended when the test has."""
    monkeypatch.setattr(local, "DRIVER", FAKE_DRIVER)
    made = Home.from_environment()
    yield made
    client = local.LocalClient(made)
    for folder in run_folders(made.runs):
        (folder.root / "finish").touch()
        try:
            client.stop(folder.run_id, grace_s=5)
        except TuneryError as error:
            pytest.fail(str(error))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The file of a small spec."""
    file = tmp_path / "small.yaml"
    file.write_text(SPEC)
    return file
