"""A Ray of this machine's that does not come up at once."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private import services

from tunery.cluster.start import STARTS, started_ray
from tunery.errors import RunError
from tunery.home import Home
from tunery.profile import Profile, load_profile

pytestmark = pytest.mark.ray

SILENT = "The current node timed out during startup."


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    home = Home(tmp_path / "home")
    home.root.mkdir()
    return load_profile(None, home)


def silent(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The first nodes start their processes and then do not answer, as Ray has it of a machine that is too busy."""
    ask, asked = services.get_node, []

    def get_node(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) <= times:
            raise Exception(SILENT)
        return ask(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(services, "get_node", get_node)


def daemons() -> list[str]:
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    return sorted(name for name in names if name in ("gcs_server", "raylet"))


def test_it_is_started_again_and_leaves_nothing_of_the_first(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch, times=1)
    heeded = signal.getsignal(signal.SIGTERM)
    with started_ray(profile, namespace="again"):
        assert signal.getsignal(signal.SIGTERM) is heeded, "Ray's own would end a driver without its checkpoints"
        assert daemons() == ["gcs_server", "raylet"]
        assert ray.get(ray.remote(lambda: 2).remote()) == 2


def test_a_machine_on_which_it_never_starts_says_so(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch, times=STARTS)
    with pytest.raises(RunError, match=f"in {STARTS} attempts: {SILENT}"), started_ray(profile, namespace="never"):
        pytest.fail("it started")
    assert daemons() == []
