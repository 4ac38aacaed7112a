"""Checkpoints in a folder of this machine's; what holds for every place is in tests/contracts/test_stores.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.checkpoints import Checkpoint, CheckpointStore
from storage.errors import ChecksumError, StorageError


def save(store: CheckpointStore, step: int, content: bytes = b"", *, score: float = 0.0, best: bool = False) -> None:
    store.save(step, {"seat": content or f"state of {step}".encode()}, metrics={"mcc": score}, best=best)


def newest(store: CheckpointStore) -> Checkpoint:
    found = store.newest()
    assert found is not None
    return found


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10, b"first")
    save(store, 10, b"second")
    assert newest(store).read("seat") == b"second"


def test_what_was_checked_is_what_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10)
    found = newest(store)
    os.truncate(tmp_path / found.name / "seat", 1)
    assert found.read("seat") == b"state of 10"
    with pytest.raises(ChecksumError, match=r"seat has 1 bytes, its manifest says 11"):
        store.at(10)


KILLED_BEFORE_COMMIT = """
import os, signal, sys
from pathlib import Path
from storage.checkpoints import CheckpointStore
from storage.stores import local

at = sys.argv[2]
write, sync = local._write, local._sync

def writing(path, content):
    if path.name == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)

def syncing(folder):
    if at == "rename":
        os.kill(os.getpid(), signal.SIGKILL)
    return sync(folder)

local._write, local._sync = writing, syncing
files = {"a": b"new" * 1000, "b": b"new" * 1000}
CheckpointStore(Path(sys.argv[1])).save(20, files, metrics={}, best=True)
"""


@pytest.mark.parametrize("at", ["b", "manifest.json", "rename"])
def test_a_writer_killed_before_the_commit_leaves_nothing_that_counts(tmp_path: Path, at: str) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10, best=True)
    killed = subprocess.run([sys.executable, "-c", KILLED_BEFORE_COMMIT, str(tmp_path), at], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".writing-*"))) == 1, "the kill came too early or too late to prove anything"
    found, best = newest(store), store.best()
    assert found.step == 10
    assert best is not None
    assert best.step == 10
    assert store.problems == []
    save(store, 30)
    assert list(tmp_path.glob(".writing-*")) == []
    assert newest(store).step == 30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = shutil.which("mount")
    place = tmp_path / "disk"
    place.mkdir()
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_an_error_and_the_last_good_one_is_kept(small_disk: Path) -> None:
    store = CheckpointStore(small_disk / "trial")
    save(store, 10, b"x" * 3_000_000, best=True)
    with pytest.raises(StorageError, match=r"checkpoint of step 20 .*No space left on device; the last good one"):
        store.save(20, {"a": b"y" * 3_000_000, "b": b"z" * 3_000_000}, metrics={}, best=True)
    found = newest(store)
    assert found.step == 10
    assert found.read("seat") == b"x" * 3_000_000
    assert [path.name for path in (small_disk / "trial").iterdir()] == ["000001-step10"]
    save(store, 30, b"y" * 3_000_000)
    assert newest(store).step == 30


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot save the checkpoint of step 1"):
        save(CheckpointStore(tmp_path / "file" / "trial"), 1)


def test_a_checkpoint_is_found_by_its_step(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    for step in (10, 20, 15, 20):
        save(store, step, f"save {step} of {len(store.steps())}".encode())
    assert store.steps() == (20, 15, 10)
    assert store.at(20).read("seat") == b"save 20 of 3", "the newest of that step"
    assert store.at(20).digest != store.at(15).digest
    with pytest.raises(StorageError, match=r"no checkpoint of step 25 in .*; there are: 10, 15, 20"):
        store.at(25)
    with pytest.raises(StorageError, match="there are: none"):
        CheckpointStore(tmp_path / "nothing").at(1)


def test_a_damaged_one_that_is_asked_for_is_named_with_a_good_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=5)
    for step in (10, 20, 30):
        save(store, step)
    for step in (20, 30):
        seat = tmp_path / store.at(step).name / "seat"
        seat.write_bytes(b"X" * seat.stat().st_size)
    with pytest.raises(ChecksumError, match=r"SHA-256 differs from its manifest's; the newest good one is of step 10"):
        store.at(30)
    os.truncate(tmp_path / store.at(10).name / "seat", 3)
    with pytest.raises(ChecksumError, match="no other one is good"):
        store.at(30)
    with pytest.raises(ChecksumError):
        Checkpoint.open(tmp_path / "000002-step20")


def test_a_trial_that_is_set_back_goes_on_from_there_and_nothing_is_lost(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10, best=True)
    save(store, 20, best=True)
    save(store, 30)
    aside = store.set_back(store.at(10)) if 10 in store.steps() else ()
    assert aside == (), "of two newest and the best, the first is gone"
    moved = store.set_back(store.at(20))
    assert newest(store).step == 20
    (folder,) = moved
    assert Checkpoint.open(Path(folder)).read("seat") == b"state of 30"
    for step in (25, 30, 35):
        save(store, step, f"again {step}".encode())
    assert newest(store).step == 35
    assert Checkpoint.open(Path(folder)).read("seat") == b"state of 30", "nobody removes it"
    assert store.set_back(newest(store)) == (), "it is the newest already"
