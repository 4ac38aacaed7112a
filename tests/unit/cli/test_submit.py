"""`platform submit` with a fake driver: what it prints, what it starts, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from storage.checkpoints import CheckpointStore
from tests.unit.client.fakes import FAKE_DRIVER, SPEC, the_run, wait_for
from tests.unit.test_begin import origin_of_plan
from tunery.cli.app import run
from tunery.client.local import LocalClient
from tunery.home import Home
from tunery.plan import Plan
from tunery.runs import OF, run_folders

SUBMIT = """
import sys
from tunery.cli.app import run
from tunery.client import local
local.DRIVER = tuple(sys.argv[2:])
sys.exit(run(["submit", sys.argv[1]]))
"""


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has SIGINT ignored, which what they start would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_is_shown_to_its_end(
    home: Home, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert run(["submit", str(spec)]) == 0
    out, err = capsys.readouterr()
    run_id = the_run(home).run_id
    assert f"{run_id}: 1 study, 1 trial of lora on prajjwal1/bert-tiny; profile local" in err
    assert "matthews_correlation 0.5000 by trial 0" in out
    assert "glue-cola version 1 is the champion: no champion before it" in out
    assert f"next: platform compare {run_id}\n" in out
    assert "      platform predict glue-cola@champion --text " in out
    assert "      platform ui\n" in out


def test_the_document_has_the_promised_shape_and_stands_alone_on_stdout(
    home: Home, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert run(["submit", str(spec), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run_id"] == the_run(home).run_id
    assert {"run_id", "name", "status", "tracking_uri", "studies"} <= document.keys()
    (study,) = document["studies"]
    keys = {"task", "cell", "status", "trials", "best", "model", "model_version", "champion"}
    assert keys <= study.keys()
    assert study["trials"] == 1
    assert study["best"] == {
        "trial": 0,
        "objective": 0.5,
        "metrics": {"matthews_correlation": 0.5, "loss": 0.4},
        "config": {"train.learning_rate": 0.001},
        "over_seeds": None,
    }


def test_a_dry_run_prints_what_would_be_started_and_starts_nothing(
    home: Home, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", str(spec), "--dry-run", "--offline", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    folder = home.runs / document["run_id"]
    assert (document["target"], document["profile"], document["to"]) == ("local", "local", str(folder))
    assert document["content"] == {
        "command": [*FAKE_DRIVER, str(folder), "--profile", "local", "--offline"],
        "environment": {"TUNERY_HOME": str(home.root)},
    }
    assert Plan.model_validate(document["plan"], strict=False).run_id == document["run_id"]
    assert run(["submit", str(spec), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{document['run_id']}: 1 study, 1 trial" in out
    assert "environment.TUNERY_HOME" in out
    assert run(["submit", str(spec), "--dry-run", "--fresh"]) == 2
    assert not home.root.exists()


def test_what_a_dry_run_has_printed_is_what_is_started(
    home: Home, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", str(spec), "--dry-run", "-o", "json"]) == 0
    content = json.loads(capsys.readouterr().out)["content"]
    assert run(["submit", str(spec), "--dry-run"]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert run(["submit", str(spec), "--detach"]) == 0
    folder = the_run(home)
    wait_for((folder.root / "starts").exists)
    driver = psutil.Process(folder.lock.pid())
    assert driver.cmdline() == content["command"]
    assert "".join(shlex.join(driver.cmdline()).split()) in shown, "and the table's line can be typed"
    assert content["environment"].items() <= driver.environ().items()


def test_detached_it_returns_at_once_and_a_second_submit_attaches(
    home: Home, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", str(spec), "--detach", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] in ("starting", "running")
    folder = the_run(home)
    wait_for(folder.state_file.exists)
    (folder.root / "finish").touch()
    assert run(["submit", str(spec)]) == 0
    assert run(["submit", str(spec)]) == 0
    assert "has finished before: nothing was started" in capsys.readouterr().err
    assert len((folder.root / "starts").read_text().splitlines()) == 1


def test_a_failed_run_ends_with_5_and_names_the_error(
    home: Home, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", str(spec), "-d"]) == 0
    (the_run(home).root / "fail").touch()
    assert run(["submit", str(spec)]) == 5
    out, err = capsys.readouterr()
    assert "every trial of cola failed" in out
    assert f"platform resume {the_run(home).run_id}" in out
    assert run(["submit", str(spec)]) == 5
    assert "lets it go on" in capsys.readouterr().err
    assert "Traceback" not in err


def test_a_driver_that_dies_at_its_start_is_told_with_its_last_words(
    home: Home, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies")
    assert run(["submit", str(spec), "-o", "json"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "interrupted"
    assert "ImportError: no engine in this machine" in err
    assert the_run(home).driver_log.exists()


def test_another_content_under_the_name_is_refused(home: Home, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", str(spec), "-d"]) == 0
    assert run(["submit", str(spec), "--set", "tuner.rank=8"]) == 4
    assert "tuner.rank: 4 -> 8" in capsys.readouterr().err
    assert len(run_folders(home.runs)) == 1


def test_a_spec_starts_over_beside_its_finished_run(
    home: Home, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert run(["submit", str(spec)]) == 0
    first = the_run(home)
    assert run(["submit", str(spec), "--fresh", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out[out.rindex('{\n  "run_id"') :])["run_id"] == f"{first.run_id}.2"
    assert f"{first.run_id}.2: 1 study" in err
    assert run(["resume", first.run_id, "--fresh"]) == 0
    assert f"run {first.run_id}.3 starts; {first.run_id} stays as it is" in capsys.readouterr().err
    assert run(["resume", "small"]) == 0
    assert "there is nothing to go on with; --fresh starts it over" in capsys.readouterr().err
    assert len((first.root / "starts").read_text().splitlines()) == 1


def test_trials_begin_with_a_checkpoint_that_is_named(
    home: Home, spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert run(["submit", str(spec)]) == 0
    first = the_run(home)
    plan = LocalClient(home).plan(first.run_id)
    store = CheckpointStore(first.checkpoints("cola", 0), keep=9)
    for step in (10, 20):
        store.save(step, {"seat": b"seat", OF: origin_of_plan(plan).to_bytes()}, metrics={}, best=False)
    (Path(store.at(20).where) / "seat").write_bytes(b"bent")
    capsys.readouterr()
    assert run(["submit", str(spec), "--from", "small/0"]) == 0
    err = capsys.readouterr().err
    assert "passed over: " in err
    assert f"trials begin with the weights of {first.run_id}/cola/0@10" in err
    assert run(["submit", str(spec), "--from", "small/0@15"]) == 3
    assert run(["submit", str(spec), "--from", f"{first.run_id}/0@15"]) == 3
    assert "there are: 10, 20" in capsys.readouterr().err
    assert run(["submit", str(spec), "--from", f"{first.run_id}/0@20"]) == 2
    assert "is damaged" in capsys.readouterr().err
    more = ["--set", "tuner.rank=8", "--set", "name=wide"]
    assert run(["submit", str(spec), *more, "--from", f"{first.run_id}/0@10"]) == 2
    assert "tuner.rank is 4 in the checkpoint, here it is 8" in capsys.readouterr().err
    assert run(["resume", first.run_id, "--from", "0@10"]) == 4
    assert "is finished and its study has counted it" in capsys.readouterr().err


def test_a_mistake_in_the_spec_starts_nothing(home: Home, spec: Path) -> None:
    spec.write_text(SPEC.replace("cola", "clola"))
    assert run(["submit", str(spec)]) == 2
    assert not home.root.exists()


@pytest.mark.timeout(60)  # with its retries MLflow's own client would take minutes
def test_a_tracking_server_that_is_away_is_named_before_anything_starts(
    home: Home, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    # Port 9 (discard) of this machine: nobody listens there.
    config.write_text('[profiles.away]\ntracking_uri = "http://127.0.0.1:9"\n')
    assert run(["submit", str(spec), "--profile", "away"]) == 6
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert not home.root.exists()


def test_the_profile_stays_with_the_run(home: Home, spec: Path, tmp_path: Path) -> None:
    config = tmp_path / "config" / "tunery" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[profiles.lab]\ncpus = 1\n")
    assert run(["submit", str(spec), "--profile", "lab", "-d"]) == 0
    folder = the_run(home)
    wait_for(folder.state_file.exists)
    assert run(["stop", folder.run_id]) == 0
    assert run(["resume", folder.run_id, "-d"]) == 0
    starts = folder.root / "starts"
    wait_for(lambda: len(starts.read_text().splitlines()) == 2)
    assert [line.split()[1:] for line in starts.read_text().splitlines()] == [["--profile", "lab"]] * 2


class Terminal:
    """A terminal with a `platform submit` in it."""

    def __init__(self, spec: Path) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-c", SUBMIT, str(spec), *FAKE_DRIVER]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            ready, _, _ = select.select([self._master], [], [], 1.0)
            if ready:
                try:
                    self.shown += os.read(self._master, 65536).decode()
                except OSError:  # closed: the last of it has been read
                    assert text in self.shown, self.shown
                    return

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        self.shown = ""
        os.kill(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        os.close(self._master)


@contextmanager
def terminal(spec: Path) -> Iterator[Terminal]:
    made = Terminal(spec)
    try:
        yield made
    finally:
        made.close()


def test_ctrl_c_asks_and_detaching_leaves_the_run_alone(home: Home, spec: Path) -> None:
    with terminal(spec) as screen:
        screen.until("running")
        screen.until("pack-0")
        screen.interrupt()
        screen.until("eep watching?")
        screen.type("k\n")
        screen.until("pack-0")
        screen.interrupt()
        screen.until("eep watching?")
        screen.type("d\n")
        screen.until("detached")
        assert screen.process.wait(30) == 130
    assert the_run(home).driven()


def test_ctrl_c_and_stop_end_the_run(home: Home, spec: Path) -> None:
    with terminal(spec) as screen:
        screen.until("pack-0")
        screen.interrupt()
        screen.until("eep watching?")
        screen.type("s\n")
        screen.until("platform resume")
        assert screen.process.wait(30) == 130
    assert not the_run(home).driven()
    assert the_run(home).current().status == "stopped"


def test_ctrl_c_where_nobody_can_answer_detaches(home: Home, spec: Path) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SUBMIT, str(spec), *FAKE_DRIVER]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "cola trial 0" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on (running) without this command" in err
    assert f"platform stop {the_run(home).run_id}" in out
    assert the_run(home).driven()
