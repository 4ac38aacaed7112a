from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
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


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "deep" / "trial")
    store.save(30, {"seat": b"\x00\xff", "notes": b"hello"}, metrics={"mcc": 0.5, "loss": 0.25}, best=True)
    for reader in (store, CheckpointStore(store.root)):
        found = newest(reader)
        assert (found.step, dict(found.metrics)) == (30, {"mcc": 0.5, "loss": 0.25})
        assert found.read("seat") == b"\x00\xff"
        assert found.read("notes") == b"hello"
        with pytest.raises(StorageError, match=r"no file 'sea'; there is: notes, seat"):
            found.read("sea")


def test_an_empty_store_has_neither(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "nothing")
    assert store.newest() is None
    assert store.best() is None
    assert not store.root.exists()


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step, best in ((10, True), (20, True), (30, False), (40, False), (50, False)):
        save(store, step, best=best)
    assert sorted(path.name.partition("step")[2] for path in tmp_path.iterdir()) == ["20", "40", "50"]
    assert newest(store).step == 50
    best_found = store.best()
    assert best_found is not None
    assert best_found.step == 20


@pytest.mark.parametrize("damage", ["truncated", "flipped", "file gone", "manifest gone", "manifest cut", "emptied"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10, b"good" * 1000)
    save(store, 20, b"late" * 1000)
    folder = newest(store).folder
    seat, manifest = folder / "seat", folder / "manifest.json"
    match damage:
        case "truncated":
            os.truncate(seat, 1234)
        case "flipped":
            seat.write_bytes(seat.read_bytes()[:-1] + b"\x00")
        case "file gone":
            seat.unlink()
        case "manifest gone":
            manifest.unlink()
        case "manifest cut":
            os.truncate(manifest, 20)
        case "emptied":
            manifest.write_bytes(b"{}")
    found = newest(store)
    assert found.step == 10
    assert found.read("seat") == b"good" * 1000
    assert len(store.problems) == 1
    assert folder.name in store.problems[0]


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_good_one(tmp_path: Path) -> None:
    """A trial set back to step 10 saves steps below the damaged 20: they count as newer, and 10 stays as the second."""
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 10)
    save(store, 20)
    os.truncate(newest(store).folder / "seat", 3)
    after_restart = CheckpointStore(tmp_path, keep=2)
    assert newest(after_restart).step == 10
    save(after_restart, 15)
    assert newest(after_restart).step == 15
    os.truncate(newest(after_restart).folder / "seat", 3)
    assert newest(after_restart).step == 10


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10, b"first")
    save(store, 10, b"second")
    assert newest(store).read("seat") == b"second"


def test_content_is_checked_again_when_it_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 10)
    found = newest(store)
    os.truncate(found.folder / "seat", 1)
    with pytest.raises(ChecksumError, match=r"seat has 1 bytes, its manifest says 11"):
        found.read("seat")


KILLED_BEFORE_COMMIT = """
import os, signal, sys
from pathlib import Path
import storage.checkpoints as checkpoints

at = sys.argv[2]
write, sync = checkpoints._write, checkpoints._sync

def writing(path, content):
    if path.name == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)

def syncing(folder):
    if at == "rename":
        os.kill(os.getpid(), signal.SIGKILL)
    return sync(folder)

checkpoints._write, checkpoints._sync = writing, syncing
files = {"a": b"new" * 1000, "b": b"new" * 1000}
checkpoints.CheckpointStore(Path(sys.argv[1])).save(20, files, metrics={}, best=True)
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
    assert [path.name for path in store.root.iterdir()] == ["000001-step10"]
    save(store, 30, b"y" * 3_000_000)
    assert newest(store).step == 30


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot save the checkpoint of step 1"):
        save(CheckpointStore(tmp_path / "file" / "trial"), 1)


def test_a_reader_beside_a_writer_always_finds_a_whole_one(tmp_path: Path) -> None:
    writer, reader = CheckpointStore(tmp_path, keep=1), CheckpointStore(tmp_path, keep=1)
    save(writer, 0)
    done = threading.Event()

    def write() -> None:
        for step in range(1, 60):
            save(writer, step)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    last = 0
    while not done.is_set():
        step = newest(reader).step
        assert step >= last
        last = step
    thread.join()
    assert reader.problems == []
    assert newest(reader).step == 59


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
        seat = store.at(step).folder / "seat"
        seat.write_bytes(b"X" * seat.stat().st_size)
    with pytest.raises(ChecksumError, match=r"SHA-256 differs from its manifest's; the newest good one is of step 10"):
        store.at(30)
    os.truncate(store.at(10).folder / "seat", 3)
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
    assert Checkpoint.open(folder).read("seat") == b"state of 30"
    for step in (25, 30, 35):
        save(store, step, f"again {step}".encode())
    assert newest(store).step == 35
    assert Checkpoint.open(folder).read("seat") == b"state of 30", "nobody removes it"
    assert store.set_back(newest(store)) == (), "it is the newest already"
