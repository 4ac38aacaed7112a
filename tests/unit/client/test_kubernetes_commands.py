"""The commands with target `kubernetes`: a thread plays the operator and the jobs, over real sockets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.at_work import Work
from tests.unit.client.fake_driver import AT_WORK
from tests.unit.client.fakes import SPEC, wait_for
from tests.unit.client.on_kubernetes import Place
from tunery import mirrored
from tunery.cli.app import run
from tunery.plan import compile_plan
from tunery.runs import RunStatus
from tunery.spec import load_spec

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def work(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    monkeypatch.setenv("COLUMNS", "200")
    place.configure()
    with place.at_work() as work:
        yield work


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SPEC)
    return file


@pytest.fixture
def run_id(spec: Path) -> str:
    return compile_plan(load_spec(spec)).run_id


@pytest.fixture
def said(capsys: Capture) -> Callable[..., dict[str, Any]]:
    """The document of a command, which ends with the exit code."""

    def document(*command: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert run([*command, "-o", "json"]) == code
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return document


Said = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("ending", "code", "out"),
    [
        ("finished", 0, "glue-cola version 1 is the champion: no champion before it"),
        ("failed", 5, "every trial of cola failed"),
        ("stopped", 130, "platform resume"),
    ],
)
def test_a_run_is_shown_to_its_end(
    ending: RunStatus, code: int, out: str, place: Place, work: Work, spec: Path, run_id: str, capsys: Capture
) -> None:
    work.ends[run_id] = ending
    assert run(["submit", str(spec)]) == code
    shown = capsys.readouterr()
    assert out in shown.out
    assert f"{run_id}: 1 study, 1 trial of lora on prajjwal1/bert-tiny; profile team" in shown.err
    assert run(["submit", str(spec), "-o", "json"]) == code
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["run_id"], document["status"]) == (run_id, ending)
    assert "nothing was started" in shown.err
    assert place.job()["spec"]["jobId"] == run_id


def test_the_commands_on_a_run(place: Place, work: Work, spec: Path, run_id: str, said: Said, capsys: Capture) -> None:
    sent = said("submit", str(spec), "--detach")
    assert (sent["run_id"], sent["tracking_uri"]) == (run_id, place.tracking.url)
    wait_for(lambda: said("status", "small")["status"] == "running")
    (listed,) = said("ls")["runs"]
    assert (listed["run_id"], listed["status"], listed["studies"]) == (run_id, "running", ["cola"])
    assert said("logs", "small")["lines"] == [AT_WORK]

    place.tracking.asked.clear()
    ended: list[int] = []

    def stop() -> None:
        wait_for(lambda: any("get-artifact" in path and mirrored.DRIVER_LOG in path for path in followed()))
        ended.append(run(["stop", "small", "--grace", "60"]))

    def followed() -> list[str]:
        return [path.replace("%2F", "/") for path in [*place.tracking.asked]]

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert run(["logs", "small", "-f"]) == 0, "it ends with the run"
    stopping.join()
    assert ended == [0]
    shown = capsys.readouterr()
    assert f"asking {run_id} to stop; it has 60 s" in shown.err
    assert AT_WORK in shown.out
    assert said("stop", "small")["status"] == "stopped"

    going_on = said("resume", "small", "--detach")
    assert going_on["status"] in ("starting", "running")
    wait_for(lambda: said("status", "small")["status"] == "running")
    work.ends[run_id] = "finished"
    assert said("resume", "small")["status"] == "finished"
    assert set(place.server.jobs()) == {run_id, f"{run_id}-again-1"}
    (study,) = said("compare", "small")["studies"]
    assert [(trial["trial"], trial["status"]) for trial in study["trials"]] == [(0, "finished")]
    for command in ("status", "ls", "compare", "stop", "resume"):
        assert run([command] if command == "ls" else [command, "small"]) == 0
    assert "has finished: there is nothing to go on with" in capsys.readouterr().err


@pytest.mark.parametrize("lost", ["the API server", "MLflow"])
def test_a_connection_that_is_given_up_ends_nothing(
    lost: str, place: Place, work: Work, spec: Path, run_id: str, said: Said, capsys: Capture
) -> None:
    server = place.server if lost == "the API server" else place.tracking

    def lose() -> None:
        wait_for(lambda: bool(work.working) and any(each.startswith("WATCH") for each in [*place.server.asked]))
        server.away = True

    losing = threading.Thread(target=lose)
    losing.start()
    assert run(["submit", str(spec)]) == 6
    losing.join()
    error = " ".join(capsys.readouterr().err.split())
    assert f"{lost} at {server.url}" in error
    assert "does not answer: HTTP 503" in error
    assert "a run that is under way goes on without it" in error
    untouched(place, run_id)
    server.away = False
    assert said("status", "small")["status"] == "running"
    assert run(["submit", str(spec), "--detach"]) == 0
    assert "this spec's run is under way already" in capsys.readouterr().err
    untouched(place, run_id)


@pytest.mark.usefixtures("kubectl_on_path", "work")
def test_ctrl_c_where_nobody_can_answer_detaches(place: Place, spec: Path, run_id: str) -> None:
    script = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "from tunery.cli.app import run; sys.exit(run(['submit', sys.argv[1]]))"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script, str(spec)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "cola trial 0" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"detached: run {run_id} goes on (running) without this command" in err
    assert f"platform stop {run_id}" in out
    untouched(place, run_id)


def untouched(place: Place, run_id: str) -> None:
    """Nobody has asked for its end."""
    assert not [each for each in place.server.asked if each.startswith(("DELETE", "PATCH"))]
    assert mirrored.STOP not in place.tracking.entries[run_id].tags
