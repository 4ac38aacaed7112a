"""The commands on runs that are there: ls, status, logs, stop, resume, compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.fakes import the_run, wait_for
from tunery.cli.app import run
from tunery.home import Home
from tunery.runs import RunFolder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def running(home: Home, spec: Path, capsys: Capture) -> RunFolder:
    assert run(["submit", str(spec), "--detach"]) == 0
    folder = the_run(home)
    wait_for(lambda: folder.state_file.exists() and folder.state().status == "running")
    capsys.readouterr()
    return folder


def finish(folder: RunFolder) -> None:
    (folder.root / "finish").touch()
    wait_for(lambda: not folder.driven())


def document(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("home")
def test_without_runs_there_is_a_hint(capsys: Capture) -> None:
    assert run(["ls"]) == 0
    assert capsys.readouterr().out == "no runs yet\nnext: platform submit SPEC\n"
    assert run(["ls", "-o", "json"]) == 0
    assert document(capsys) == {"runs": []}
    assert run(["status", "small"]) == 3
    assert "no run 'small'; there are no runs yet" in capsys.readouterr().err


def test_ls_lists_runs_with_their_true_status(running: RunFolder, capsys: Capture) -> None:
    assert run(["ls"]) == 0
    assert "● running" in capsys.readouterr().out
    finish(running)
    assert run(["ls", "-o", "json"]) == 0
    (one,) = document(capsys)["runs"]
    assert (one["run_id"], one["name"], one["status"]) == (running.run_id, "small", "finished")
    assert (one["trials"], one["ended_trials"], one["studies"]) == (1, 1, ["cola"])


def test_status_by_name_and_after_the_death_of_the_driver(running: RunFolder, capsys: Capture) -> None:
    assert run(["status", "small"]) == 0
    out = capsys.readouterr().out
    assert f"● {running.run_id}  running" in out
    assert f"platform stop {running.run_id}" in out
    pid = running.lock.pid()
    assert pid is not None
    os.kill(pid, 9)
    wait_for(lambda: not running.driven())
    assert run(["status", "sma", "-o", "json"]) == 0
    assert document(capsys)["status"] == "interrupted"
    assert run(["status", "small"]) == 0
    assert f"next: platform resume {running.run_id}" in capsys.readouterr().out


def test_logs(running: RunFolder, capsys: Capture) -> None:
    finish(running)
    assert run(["logs", "small"]) == 0
    assert capsys.readouterr().out == "driver at work\n"
    assert run(["logs", "small", "--trial", "0", "-o", "json"]) == 0
    lines = ["trial 0 is finished"]
    assert document(capsys) == {"run_id": running.run_id, "study": None, "trial": 0, "lines": lines}
    assert run(["logs", "small", "-f"]) == 0
    assert run(["logs", "small", "--trial", "3"]) == 3
    assert run(["logs", "small", "--study", "cola"]) == 2
    assert run(["logs", "small", "-f", "-o", "json"]) == 2


def test_a_reader_that_has_seen_enough_of_a_log_is_no_fault(running: RunFolder) -> None:
    with running.driver_log.open("a") as log:
        log.writelines(f"line {number} of a long log\n" for number in range(100_000))
    command = [sys.executable, "-m", "tunery.cli.app", "logs", "small"]
    logs = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert logs.stdout is not None
    assert logs.stderr is not None
    assert logs.stdout.readline() == "driver at work\n"
    logs.stdout.close()
    assert logs.wait(60) == 0
    assert logs.stderr.read() == ""
    logs.stderr.close()


def test_stop_and_resume(running: RunFolder, capsys: Capture) -> None:
    assert run(["stop", "small", "-o", "json"]) == 0
    assert document(capsys)["status"] == "stopped"
    assert run(["stop", "small"]) == 0
    assert "had stopped" in capsys.readouterr().out
    assert run(["resume", "small", "--detach"]) == 0
    wait_for(lambda: running.state().status == "running")
    (running.root / "finish").touch()
    assert run(["resume", "small"]) == 0
    assert "glue-cola version 1 is the champion" in capsys.readouterr().out
    assert run(["resume", "small"]) == 0
    assert "has finished: there is nothing to go on with" in capsys.readouterr().err


def test_compare(running: RunFolder, capsys: Capture) -> None:
    finish(running)
    assert run(["compare", "small"]) == 0
    out = capsys.readouterr().out
    assert "matthews_correlation, more is better" in out
    assert "learning_rate" in out
    assert run(["compare", "small", "--study", "cola", "-o", "json"]) == 0
    (study,) = document(capsys)["studies"]
    assert study["direction"] == "maximise"
    assert [trial["trial"] for trial in study["trials"]] == [0]
    assert run(["compare", "small", "--study", "rte"]) == 3
    assert "no study 'rte'; known: cola" in capsys.readouterr().err


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", ["status", "logs", "stop", "resume", "compare", "report"])
def test_an_unknown_run_is_exit_code_3(command: str, capsys: Capture) -> None:
    assert run([command, "nothing", "-o", "json"]) == 3
    assert document(capsys)["error"]["type"] == "NotFoundError"


def test_the_commands_on_runs_load_nothing_heavy(running: RunFolder) -> None:
    script = """
import sys
from tunery.cli.app import run
for command in (["ls"], ["status", "small"], ["compare", "small"], ["logs", "small"], ["stop", "small"]):
    assert run(command) == 0, command
heavy = {"torch", "ray", "mlflow", "transformers", "numpy", "pyarrow", "sklearn", "optuna"} & sys.modules.keys()
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    assert running.driven()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
