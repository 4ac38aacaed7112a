"""`platform ui`: a real server on a free port, which goes when the command goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.unit.client.fakes import wait_for
from tunery.cli import ui
from tunery.cli.app import run


def test_it_serves_until_it_is_ended_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "tunery.cli.app", "ui", "-o", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    document = json.loads("".join(lines))
    assert httpx.get(document["url"], timeout=30).status_code == 200
    assert httpx.get(document["url"], timeout=30, headers={"Host": "evil.example"}).status_code == 403
    # Not SIGINT, of which Python makes a KeyboardInterrupt by itself: this is the one that would leave a server behind.
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    wait_for(lambda: not group_lives(document["pid"]))


def group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_that_ends_at_its_start_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.local]\ntracking_uri = "nonsense://here"\n')
    monkeypatch.setattr(ui, "START_S", 60.0)
    assert run(["ui"]) == 6
    err = capsys.readouterr().err
    assert "MLflow's server has ended at its start" in err
    assert "nonsense" in err


def test_a_server_of_the_profile_is_not_started_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.local]\ntracking_uri = "http://127.0.0.1:9"\n')
    assert run(["ui"]) == 6
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
