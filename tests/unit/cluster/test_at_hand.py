"""A run's secrets in a process of another node."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tunery.cluster.at_hand import PROFILE, processes_of, resolve
from tunery.home import Home
from tunery.profile import load_profile

CONFIG = """\
[profiles.team]
[profiles.team.secrets]
FIRST = {{file = "{folder}/first"}}
SECOND = {{env = "NOT_ON_THIS_NODE"}}
THIRD = {{file = "{folder}/first"}}
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "first").write_text("from the file\n")
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    for name in ("FIRST", "SECOND", "NOT_ON_THIS_NODE"):
        monkeypatch.setenv(name, "")  # so that the test's end takes it away again
        monkeypatch.delenv(name)
    monkeypatch.setenv("THIRD", "the node's own")
    return tmp_path


def test_ray_is_told_where_they_are_and_not_what_they_are(node: Path) -> None:
    environment = processes_of(load_profile("team", Home(node)), {"HF_HUB_OFFLINE": "1"})
    assert environment["env_vars"] == {"HF_HUB_OFFLINE": "1", PROFILE: "team"}
    module, _, name = str(environment["worker_process_setup_hook"]).rpartition(".")
    assert getattr(importlib.import_module(module), name) is resolve
    assert processes_of(load_profile("local", Home(node)), {}) == {}


@pytest.mark.usefixtures("node")
def test_each_process_finds_its_own(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(PROFILE, "team")
    resolve()
    assert os.environ["FIRST"] == "from the file"
    assert os.environ["THIRD"] == "the node's own"
    assert "SECOND" not in os.environ
    assert "SECOND is not set on this node: the environment variable NOT_ON_THIS_NODE, which the profile" in caplog.text


@pytest.mark.usefixtures("node")
def test_a_node_that_lacks_the_profile_keeps_its_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROFILE, "another")
    before = dict(os.environ)
    resolve()
    assert dict(os.environ) == before
    assert "this node's environment is taken as it is" in caplog.text
