"""A run on disk: who drives it, and what its state is when nobody does."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.files import write_whole
from tunery.errors import ConflictError, NotFoundError
from tunery.runs import LOCK_FD, RunFolder, RunState, run_folders

HOLD = """
import sys
from pathlib import Path
from tunery.runs import RunFolder
with RunFolder(Path(sys.argv[1])).lock.hold():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process_drives(folder: RunFolder) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "glue-0123abcd")


def test_a_run_that_nobody_ever_drove_is_not_driven_and_asking_leaves_nothing_behind(folder: RunFolder) -> None:
    assert not folder.driven()
    assert folder.lock.pid() is None
    assert not folder.root.exists()


def test_a_second_driver_is_refused(folder: RunFolder) -> None:
    with other_process_drives(folder) as driver:
        assert folder.driven()
        assert folder.lock.pid() == driver.pid
        with pytest.raises(ConflictError, match="has a driver already"), folder.lock.hold():
            pass
        assert folder.lock.pid() == driver.pid, "the refused one must not overwrite the driver's pid"
    assert not folder.driven()


def test_the_lock_goes_with_a_killed_driver(folder: RunFolder) -> None:
    with other_process_drives(folder) as driver:
        driver.kill()
        driver.wait(30)
        assert not folder.driven()
        with folder.lock.hold():
            assert folder.lock.pid() == os.getpid()


def test_asking_whether_a_run_is_driven_never_keeps_a_driver_out(folder: RunFolder) -> None:
    asker = """
import sys
from pathlib import Path
from tunery.runs import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("asking", flush=True)
while not Path(sys.argv[2]).exists():
    folder.driven()
"""
    done = folder.root.parent / "done"
    process = subprocess.Popen(
        [sys.executable, "-c", asker, str(folder.root), str(done)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"
    try:
        for _ in range(2000):
            with folder.lock.hold():
                pass
    finally:
        done.touch()
        assert process.wait(30) == 0
        process.stdout.close()


def test_a_lock_handed_over_is_held_from_the_moment_the_driver_is_started(folder: RunFolder) -> None:
    handle = folder.lock.take()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[handle.fileno()],
        env={**os.environ, LOCK_FD: str(handle.fileno())},
    )
    folder.lock.note(handle, process.pid)
    handle.close()
    assert folder.lock.pid() == process.pid
    output, _ = process.communicate("", timeout=30)
    assert output == "held\n"
    assert not folder.driven()


def test_a_handle_that_is_not_of_this_lock_is_not_taken_for_it(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "other").open("w") as other:
        monkeypatch.setenv(LOCK_FD, str(other.fileno()))
        with folder.lock.hold():
            assert folder.lock.pid() == os.getpid()
    with other_process_drives(folder), pytest.raises(ConflictError), folder.lock.hold():
        pass


def test_a_forked_child_that_outlives_the_driver_does_not_keep_the_lock(folder: RunFolder) -> None:
    context = multiprocessing.get_context("fork")
    leave = context.Event()
    with folder.lock.hold():
        child = context.Process(target=leave.wait)
        child.start()
    try:
        assert not folder.driven()
    finally:
        leave.set()
        child.join(30)


def test_a_state_that_goes_on_without_a_driver_is_interrupted(folder: RunFolder) -> None:
    folder.write_state(RunState(run_id=folder.run_id, name="glue", status="running"))
    assert folder.current().status == "interrupted"
    with other_process_drives(folder):
        assert folder.current().status == "running"
    folder.stop_file.touch()
    assert folder.current().status == "stopped"


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_a_state_that_has_ended_stays_as_it_is(folder: RunFolder, status: str) -> None:
    folder.write_state(RunState.model_validate({"run_id": folder.run_id, "name": "glue", "status": status}))
    assert folder.current().status == status


def test_a_driver_that_has_written_nothing_is_starting_and_once_gone_interrupted(folder: RunFolder) -> None:
    with other_process_drives(folder):
        assert folder.current(name="glue") == RunState(run_id=folder.run_id, name="glue", status="starting")
    assert folder.current().status == "interrupted"


def test_a_newer_state_with_unknown_fields_is_read(folder: RunFolder) -> None:
    write_whole(folder.state_file, b'{"run_id": "glue-0123abcd", "name": "glue", "status": "finished", "moon": "full"}')
    assert folder.state().status == "finished"


def test_no_state_is_not_found(folder: RunFolder) -> None:
    with pytest.raises(NotFoundError, match="has not started"):
        folder.state()


def test_runs_are_listed_newest_first_and_a_folder_without_a_plan_is_none(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "older")):
        write_whole(tmp_path / name / "plan.json", b"{}")
        os.utime(tmp_path / name / "plan.json", (1e9 - age, 1e9 - age))
    (tmp_path / "half-made").mkdir()
    assert [folder.run_id for folder in run_folders(tmp_path)] == ["new", "old", "older"]
    assert run_folders(tmp_path / "missing") == ()
