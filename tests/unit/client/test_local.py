"""Runs on this machine, with a fake driver in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from storage.files import write_whole
from tests.unit.client.fakes import FAKE_DRIVER, make_plan, wait_for
from tunery.client import local
from tunery.client.local import LocalClient
from tunery.errors import ConflictError, InputError, NotFoundError, RunError
from tunery.home import Home
from tunery.runs import RunFolder

FolderOf = Callable[[str], RunFolder]


def starts(folder: RunFolder) -> list[str]:
    return (folder.root / "starts").read_text().splitlines()


def until_running(folder: RunFolder) -> None:
    wait_for(lambda: folder.state_file.exists() and folder.state().status == "running")


def test_send_writes_the_plan_starts_a_driver_and_returns_at_once(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    handle = client.send(plan)
    folder = folder_of(plan.run_id)
    assert (handle.run_id, handle.outcome) == (plan.run_id, "started")
    assert client.state(plan.run_id).status in ("starting", "running"), "driven from the first moment"
    assert client.plan(plan.run_id) == plan
    until_running(folder)
    pid = folder.lock.pid()
    assert pid is not None
    assert os.getsid(pid) == pid, "Ctrl-C in the terminal must not reach the driver"
    (folder.root / "finish").touch()
    assert [state.status for state in client.watch(plan.run_id)][-1] == "finished"
    assert folder.driver_log.read_text() == "driver at work\n"


def test_the_driver_is_told_home_and_profile(home: Home, folder_of: FolderOf) -> None:
    plan = make_plan()
    environment = "import os, sys; print(os.environ['TUNERY_HOME'], *sys.argv[1:])"
    LocalClient(home, driver_command=(sys.executable, "-c", environment), profile="lab").send(plan)
    folder = folder_of(plan.run_id)
    wait_for(lambda: not folder.driven())
    assert folder.driver_log.read_text() == f"{home.root} {folder.root} --profile lab\n"


@pytest.mark.parametrize("offline", [False, True])
def test_what_is_shown_of_a_run_is_what_is_started(home: Home, folder_of: FolderOf, offline: bool) -> None:
    plan = make_plan()
    client = LocalClient(home, driver_command=FAKE_DRIVER, profile="lab")
    shown = client.preview(plan, offline=offline)
    client.send(plan, offline=offline)
    folder = folder_of(plan.run_id)
    until_running(folder)
    driver = psutil.Process(folder.lock.pid())
    assert {
        "command": driver.cmdline(),
        "environment": {"TUNERY_HOME": driver.environ()["TUNERY_HOME"]},
    } == shown.content
    assert shown.to == str(folder.root)


def test_the_same_plan_again_finds_the_run(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    assert client.send(plan).outcome == "attached"
    (folder.root / "finish").touch()
    wait_for(lambda: not folder.driven())
    assert client.send(plan).outcome == "finished"
    assert len(starts(folder)) == 1


def test_a_finished_run_of_which_mlflow_lacks_something_goes_on(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    (folder.root / "finish").touch()
    wait_for(lambda: not folder.driven())
    folder.write_state(client.state(plan.run_id).model_copy(update={"unsent": True}))
    assert client.resume(plan.run_id).outcome == "resumed"
    wait_for(lambda: not folder.driven())
    assert len(starts(folder)) == 2


def test_an_interrupted_run_goes_on_when_its_plan_is_sent_again(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    pid = folder.lock.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not folder.driven())
    assert client.state(plan.run_id).status == "interrupted"
    assert client.send(plan).outcome == "resumed"
    assert client.state(plan.run_id).status in ("starting", "running")
    wait_for(lambda: len(starts(folder)) == 2)


@pytest.mark.parametrize(("end", "status"), [("fail", "failed"), ("stop", "stopped")])
def test_a_run_that_ended_goes_on_only_when_asked_to(
    client: LocalClient, folder_of: FolderOf, end: str, status: str
) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    (folder.root / end).touch()
    wait_for(lambda: not folder.driven())
    assert client.state(plan.run_id).status == status
    assert client.send(plan).outcome == "ended"
    (folder.root / "fail").unlink(missing_ok=True)
    assert client.resume(plan.run_id).outcome == "resumed"
    until_running(folder)
    assert client.state(plan.run_id).error == "", "the error of the last time is not this one's"
    assert client.resume(plan.run_id).outcome == "attached"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_driver_that_has_told_the_end_and_not_gone_yet_is_waited_for(
    client: LocalClient, folder_of: FolderOf, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "lingers")
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    (folder.root / "fail").touch()
    assert [state.status for state in client.watch(plan.run_id)][-1] == "failed"
    assert folder.driven()

    waits: list[float] = []

    def let_it_go(seconds: float) -> None:
        waits.append(seconds)
        (folder.root / "gone").touch()
        time.sleep(0.01)  # between two looks

    monkeypatch.setattr(local, "time", SimpleNamespace(sleep=let_it_go, monotonic=time.monotonic))
    monkeypatch.setenv("FAKE_DRIVER", "finishes")
    assert client.resume(plan.run_id, fresh=fresh).outcome == ("started" if fresh else "resumed")
    assert waits, "it was waited for"


def test_ten_submits_at_once_start_one_driver(home: Home, folder_of: FolderOf, tmp_path: Path) -> None:
    plan = make_plan()
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    script = """
import sys
from pathlib import Path
from tunery.client.local import LocalClient
from tunery.home import Home
from tunery.plan import Plan
plan = Plan.model_validate_json(Path(sys.argv[2]).read_text())
client = LocalClient(Home(Path(sys.argv[1])), driver_command=sys.argv[3:])
print("ready", flush=True)
sys.stdin.readline()
print(client.send(plan).outcome)
"""
    command = [sys.executable, "-c", script, str(home.root), str(tmp_path / "plan.json"), *FAKE_DRIVER]
    pipe = subprocess.PIPE
    submits = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(10)]
    for submit in submits:
        assert submit.stdout is not None
        assert submit.stdout.readline() == "ready\n"
    for submit in submits:
        assert submit.stdin is not None
        submit.stdin.write("go\n")
        submit.stdin.flush()
    outcomes = sorted(submit.communicate(timeout=60)[0].strip() for submit in submits)
    assert outcomes == ["attached"] * 9 + ["started"]
    folder = folder_of(plan.run_id)
    until_running(folder)
    assert len(starts(folder)) == 1


def test_the_same_name_with_another_content_is_refused_with_the_difference(client: LocalClient) -> None:
    client.send(make_plan(search={"trials": 6}))
    with pytest.raises(ConflictError) as refused:
        client.send(make_plan(search={"trials": 8}, train={"epochs": 5}))
    message = str(refused.value)
    assert "search.trials: 6 -> 8" in message
    assert "train.epochs:  (not set) -> 5" in message
    assert "--set name=glue-2" in message
    assert "seed" not in message, "what is the same is not shown"
    assert len(client.runs()) == 1
    assert client.send(make_plan(name="glue-2")).outcome == "started", "a name that begins alike is another name"


def test_a_folder_left_half_made_by_a_killed_submit_is_started(client: LocalClient, folder_of: FolderOf) -> None:
    bare, planned = make_plan(), make_plan(name="other")
    folder_of(bare.run_id).root.mkdir(parents=True)
    write_whole(folder_of(planned.run_id).plan_file, planned.model_dump_json().encode())
    assert client.send(bare).outcome == "started"
    assert client.state(planned.run_id).status == "interrupted"
    assert client.send(planned).outcome == "resumed"


def test_a_driver_that_dies_at_its_start_ends_the_watch(client: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies")
    plan = make_plan()
    client.send(plan)
    assert [state.status for state in client.watch(plan.run_id)][-1] == "interrupted"
    assert list(client.log(plan.run_id)) == ["ImportError: no engine in this machine"]


def test_stop_asks_the_driver_and_waits_for_it(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    until_running(folder_of(plan.run_id))
    assert client.stop(plan.run_id, grace_s=30).status == "stopped"
    assert not folder_of(plan.run_id).driven()
    assert client.stop(plan.run_id).status == "stopped", "stopping what is stopped changes nothing"


def test_stop_ends_a_driver_that_does_not_heed_it_and_nothing_else(
    client: LocalClient, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, plan = make_plan(name="other"), make_plan()
    client.send(other)
    monkeypatch.setenv("FAKE_DRIVER", "hangs")
    monkeypatch.setattr(local, "TERMINATE_GRACE_S", 0.1)
    client.send(plan)
    until_running(folder_of(plan.run_id))
    until_running(folder_of(other.run_id))
    assert client.stop(plan.run_id, grace_s=0).status == "stopped"
    assert not folder_of(plan.run_id).driven()
    assert folder_of(other.run_id).driven()


def test_stop_says_when_a_driver_stays(
    client: LocalClient, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    monkeypatch.setattr(local, "TERMINATE_GRACE_S", 0.0)
    monkeypatch.setattr(local, "_signal_group", lambda *_: None)
    monkeypatch.setattr(local, "_wait", lambda *_: False)
    with pytest.raises(RunError, match=f"process {folder.lock.pid()}, is still there"):
        client.stop(plan.run_id, grace_s=0)


def test_a_finished_run_cannot_be_stopped_any_more(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    (folder_of(plan.run_id).root / "finish").touch()
    wait_for(lambda: not folder_of(plan.run_id).driven())
    assert client.stop(plan.run_id).status == "finished"
    assert not folder_of(plan.run_id).stop_file.exists()


def test_a_run_is_found_by_id_name_and_beginning(client: LocalClient) -> None:
    glue, small = make_plan(), make_plan(name="glue-small")
    client.send(glue)
    client.send(small)
    assert client.find(glue.run_id) == glue.run_id
    assert client.find("glue") == glue.run_id, "a whole name goes before a beginning"
    assert client.find("glue-s") == small.run_id
    with pytest.raises(InputError, match="may be any of: glue-"):
        client.find("glu")
    with pytest.raises(NotFoundError, match="did you mean 'glue-small'"):
        client.find("glue-smal1")
    for text in ("", "../glue", "nothing"):
        with pytest.raises(NotFoundError):
            client.find(text)


def test_runs_are_told_with_their_true_status(client: LocalClient, folder_of: FolderOf) -> None:
    assert client.runs() == ()
    first, second = make_plan(), make_plan(name="second")
    client.send(first)
    client.send(second)
    os.utime(folder_of(first.run_id).plan_file, (1e9, 1e9))
    (folder_of(first.run_id).root / "finish").touch()
    wait_for(lambda: not folder_of(first.run_id).driven())
    until_running(folder_of(second.run_id))
    assert [(state.name, state.status) for state in client.runs()] == [("second", "running"), ("glue", "finished")]


def test_logs_of_the_driver_and_of_a_trial(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    until_running(folder_of(plan.run_id))
    assert list(client.log(plan.run_id)) == ["driver at work"]
    assert list(client.log(plan.run_id, trial=0)) == ["trial 0 is running"]
    assert list(client.log(plan.run_id, study="cola", trial=0)) == ["trial 0 is running"]
    with pytest.raises(NotFoundError, match="no trial 7; there are: 0 to 0"):
        client.log(plan.run_id, trial=7)
    with pytest.raises(NotFoundError, match="no study 'rte'; known: cola"):
        client.log(plan.run_id, study="rte", trial=0)


def test_a_log_is_followed_to_the_end_of_the_run(client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    until_running(folder)
    lines = client.log(plan.run_id, follow=True)
    assert next(lines) == "driver at work"
    with folder.driver_log.open("a") as log:
        log.write("half a li")
        log.flush()
        log.write("ne\nand an end without a newline")
    (folder.root / "finish").touch()
    assert list(lines) == ["half a line", "and an end without a newline"]


def test_a_plan_of_another_version_says_so(client: LocalClient, folder_of: FolderOf) -> None:
    write_whole(folder_of("glue-01234567").plan_file, b'{"run_id": "glue-01234567", "spec": {"name": "glue"}}')
    with pytest.raises(ConflictError, match="written by another version"):
        client.plan("glue-01234567")
