"""`platform doctor`: each failing line says what to do, and the exit code says what kind it is."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tunery.cli import _checks, extras
from tunery.cli.app import run
from tunery.home import Home
from tunery.profile import load_profile

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its import takes seconds and is not what is tested here.
    monkeypatch.setattr(_checks, "device", lambda: _checks.Check("device", ok=True, detail="CPU", required=False))


@pytest.fixture
def profile(tmp_path: Path, home: Home) -> Callable[[str], None]:
    def write(text: str) -> None:
        file = tmp_path / "config" / "tunery" / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"[profiles.local]\n{text}\n")

    assert not home.root.exists()
    return write


def report(capsys: Capture) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def test_a_machine_that_is_well(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(extras, "missing", lambda _: ())
    assert run(["doctor", "-o", "json"]) == 0
    checks = report(capsys)
    assert all(check["ok"] for check in checks.values() if check["required"])
    assert checks["TUNERY_HOME"]["detail"] == str(home.root)
    ways = r"attention: (buckets|varlen); adapters: (loop|grouped) \(.+\)"
    assert re.search(ways, str(checks["engine"]["detail"])), "how the engine would compute is printed"
    assert list(home.root.iterdir()) == [], "trying it leaves nothing behind"
    assert run(["doctor"]) == 0
    assert "all a run needs is here" in capsys.readouterr().out


def test_every_line_that_is_not_well_says_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(extras, "missing", lambda extra: extras.PACKAGES[extra])
    home.root.parent.mkdir(exist_ok=True)
    home.root.write_text("a file where a folder should be")
    assert run(["doctor", "-o", "json"]) == 7
    checks = report(capsys)
    assert not checks["extra cluster"]["ok"]
    assert "pip install 'tunery[cluster]'" in str(checks["extra cluster"]["todo"])
    assert "set TUNERY_HOME" in str(checks["TUNERY_HOME"]["todo"])
    assert all(check["todo"] for check in checks.values() if not check["ok"])
    assert run(["doctor"]) == 7
    assert "a run needs: extra cluster, TUNERY_HOME" in capsys.readouterr().out
    home.root.unlink()


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ('tracking_uri = "http://127.0.0.1:9"', "tracking (MLflow)", "http://127.0.0.1:9 does not answer"),
        ('study_storage_url = "postgresql://db@127.0.0.1:9/x"', "studies (Optuna)", "127.0.0.1:9 does not answer"),
        ('ray = "127.0.0.1:9"', "ray", "127.0.0.1:9 does not answer"),
        ('secrets = {PGPASSWORD = {env = "NOT_SET_ANYWHERE"}}', "profile local", "NOT_SET_ANYWHERE"),
        ('store = "/dev/null"', "store (checkpoints)", "/dev/null/doctor cannot be used as a store: Not a directory"),
    ],
)
def test_what_does_not_answer_is_named(
    profile: Callable[[str], None], text: str, name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(extras, "missing", lambda _: ())
    profile(text)
    assert run(["doctor", "-o", "json"]) == 6
    check = report(capsys)[name]
    assert not check["ok"]
    assert said in str(check["detail"])
    assert check["todo"]


def test_something_that_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert _checks.server("ray", f"127.0.0.1:{port}", default_port=1).ok
        assert _checks.server("db", f"postgresql://user@127.0.0.1:{port}/x", default_port=1).ok


def test_a_database_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    profile = load_profile(None, Home(tmp_path))
    assert _checks.store("tracking", f"sqlite:///{file}", profile).ok, "there is none yet, and a run makes it"
    assert not file.exists()
    file.write_bytes(b"this is no database, but long enough to be read as one" * 100)
    check = _checks.store("tracking", f"sqlite:///{file}", profile)
    assert not check.ok
    assert "not a database" in check.detail


def test_no_port() -> None:
    def refuse() -> int:
        raise PermissionError("not allowed")

    assert not _checks.ports(refuse).ok
    assert _checks.ports().ok
