"""Where the embedded state lies, and whose it is."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from tunery.home import Home, who


def test_the_home_is_the_environment_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "here"))
    assert Home.from_environment().runs == tmp_path / "here" / "runs"
    assert not (tmp_path / "here").exists(), "nothing is created until it is written to"


@pytest.mark.parametrize("error", [KeyError("uid not found: 1000620000"), OSError("no username set")])
def test_a_user_without_a_name_is_no_failure(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert who() == "unknown"
