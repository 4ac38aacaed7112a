"""What holds for every place where checkpoints are kept: on a folder, and on a real S3 server."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyarrow import fs

from storage import stores
from storage.checkpoints import Checkpoint, CheckpointStore
from storage.errors import ChecksumError, StorageError
from storage.stores import MANIFEST, Place, check, open_store
from tests.object_store import BUCKET, ObjectStore

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0


@dataclass
class Kept:
    """A place, and what is there whatever the code under test makes of it."""

    place: Place
    files: fs.FileSystem
    root: str

    def raw(self) -> dict[str, int]:
        """Path below the place -> bytes, of each file."""
        selector = fs.FileSelector(self.root, recursive=True, allow_not_found=True)
        found = [each for each in self.files.get_file_info(selector) if each.type == fs.FileType.File]
        return {each.path.removeprefix(f"{self.root}/"): each.size for each in found}

    def read(self, path: str) -> bytes:
        with self.files.open_input_stream(f"{self.root}/{path}") as stream:
            content: bytes = stream.read()
            return content

    def write(self, path: str, content: bytes) -> None:
        with self.files.open_output_stream(f"{self.root}/{path}") as stream:
            stream.write(content)

    def remove(self, path: str) -> None:
        self.files.delete_file(f"{self.root}/{path}")

    def store(self, keep: int = 2) -> CheckpointStore:
        return CheckpointStore(self.place, keep=keep)


@pytest.fixture
def local(tmp_path: Path) -> Kept:
    root = tmp_path / "deep" / "trial"
    return Kept(root, fs.LocalFileSystem(), str(root))


@pytest.fixture
def s3(object_store: ObjectStore, s3_key: None) -> Kept:  # noqa: ARG001
    return in_the_bucket(object_store)


@pytest.fixture
def s3_over_tls(object_store: ObjectStore, s3_key: None) -> Kept:  # noqa: ARG001
    return in_the_bucket(object_store, endpoint=object_store.by_name("https"), ca=str(object_store.ca))


@pytest.fixture
def s3_in_the_hosts_name(object_store: ObjectStore, s3_key: None) -> Kept:  # noqa: ARG001
    return in_the_bucket(object_store, endpoint=object_store.by_name("http"), path_style=False, region="eu-1")


def in_the_bucket(server: ObjectStore, **settings: str | bool) -> Kept:
    address = server.address(BUCKET, **settings)
    return Kept(address, server.files(), address.url.removeprefix("s3://"))


@pytest.fixture(params=(*stores.names(), "s3_over_tls", "s3_in_the_hosts_name"))
def kept(request: pytest.FixtureRequest) -> Kept:
    """A new place of each kind that there is: a kind without a fixture of its name here fails."""
    found: Kept = request.getfixturevalue(request.param)
    return found


def save(store: CheckpointStore, step: int, content: bytes = b"", *, score: float = 0.0, best: bool = False) -> None:
    store.save(step, {"seat": content or f"state of {step}".encode()}, metrics={"mcc": score}, best=best)


def newest(store: CheckpointStore) -> Checkpoint:
    found = store.newest()
    assert found is not None
    return found


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {LIMIT_S:.0f} s")
        time.sleep(0.01)  # between two looks


def test_what_was_saved_is_read_back(kept: Kept) -> None:
    store = kept.store()
    assert (store.newest(), store.best(), store.steps()) == (None, None, ())
    assert kept.raw() == {}, "looking creates nothing"
    files = {"seat": b"\x00\xff", "notes": b"hello", "empty": b""}
    store.save(30, files, metrics={"mcc": 0.5, "loss": 0.25}, best=True)
    for reader in (store, kept.store()):
        found, best = newest(reader), reader.best()
        assert (found.step, dict(found.metrics), dict(found.files)) == (30, {"mcc": 0.5, "loss": 0.25}, files)
        assert best == found
        assert found.where.startswith(str(kept.place))
        with pytest.raises(StorageError, match=r"no file 'sea'; there is: empty, notes, seat"):
            found.read("sea")


def test_what_is_larger_than_a_piece_is_whole(kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = os.urandom(23 << 20)
    monkeypatch.setattr("storage.content.PIECE", 9 << 20)
    (tmp_path / "large").write_bytes(content)
    store = kept.store()
    store.save(1, {"seat": content, "file": tmp_path / "large"}, metrics={}, best=False)
    found = newest(store)
    assert found.read("seat") == found.read("file") == content


def test_the_newest_two_and_the_best_are_kept_and_nothing_else(kept: Kept) -> None:
    store = kept.store()
    for step, best in ((10, True), (20, True), (30, False), (40, False), (50, False)):
        save(store, step, best=best)
    assert store.steps() == (50, 40, 20)
    assert sorted(path.partition("/")[2] for path in kept.raw()) == [MANIFEST] * 3 + ["seat"] * 3
    best_found = store.best()
    assert best_found is not None
    assert best_found.step == 20
    assert store.at(40).read("seat") == b"state of 40"
    with pytest.raises(StorageError, match=r"no checkpoint of step 30 in .*; there are: 20, 40, 50"):
        store.at(30)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "file gone", "manifest gone", "manifest cut", "emptied"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(kept: Kept, damage: str) -> None:
    store = kept.store()
    save(store, 10, b"good" * 1000)
    save(store, 20, b"late" * 1000)
    name = newest(store).name
    seat, manifest = f"{name}/seat", f"{name}/{MANIFEST}"
    match damage:
        case "truncated":
            kept.write(seat, kept.read(seat)[:1234])
        case "flipped":
            kept.write(seat, kept.read(seat)[:-1] + b"\x00")
        case "file gone":
            kept.remove(seat)
        case "manifest gone":
            kept.remove(manifest)
        case "manifest cut":
            kept.write(manifest, kept.read(manifest)[:20])
        case "emptied":
            kept.write(manifest, b"{}")
    found = newest(store)
    assert (found.step, found.read("seat")) == (10, b"good" * 1000)
    if damage != "manifest gone":  # where nothing is renamed, that is how an unfinished one looks
        assert len(store.problems) == 1
        assert name in store.problems[0]
    with pytest.raises(StorageError, match=r"newest good one is of step 10|no checkpoint of step 20"):
        store.at(20)


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_good_one(kept: Kept) -> None:
    save(kept.store(), 10)
    save(kept.store(), 20)
    kept.write(f"{newest(kept.store()).name}/seat", b"cut")
    again = kept.store()
    assert newest(again).step == 10
    save(again, 15)
    assert newest(again).step == 15
    kept.write(f"{newest(again).name}/seat", b"cut")
    assert newest(again).step == 10


def test_a_trial_that_is_set_back_goes_on_from_there_and_nothing_is_lost(kept: Kept) -> None:
    store = kept.store()
    for step in (20, 30):
        save(store, step, best=step == 20)
    (aside,) = store.set_back(store.at(20))
    assert newest(store).step == 20
    for step in (25, 30, 35):
        save(store, step, f"again {step}".encode())
    assert (newest(store).step, store.steps()) == (35, (35, 30, 20))
    assert kept.read(f"{aside.removeprefix(str(kept.place)).strip('/')}/seat") == b"state of 30", "nobody removes it"
    assert store.set_back(newest(store)) == (), "it is the newest already"


# The mapping stops its process where a file of that name is asked for: whatever comes before it was written then.
KILLED = """
import json, pickle, signal, sys
from storage.stores import MANIFEST, open_store

place, at = pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2]

class Stopping(dict):
    def __getitem__(self, name):
        if name == at:
            print("stopped", flush=True)
            signal.pause()
        return super().__getitem__(name)

    def items(self):
        return ((name, self[name]) for name in self)

open_store(place).commit("000002-step20", Stopping({"a": b"new" * 1000, "b": b"new" * 1000, MANIFEST: b"{}"}))
"""


@pytest.mark.parametrize("at", ["b", MANIFEST])
def test_what_a_killed_writer_has_left_does_not_count_and_is_collected(kept: Kept, at: str) -> None:
    store = kept.store()
    save(store, 10, best=True)
    before = kept.raw()
    arguments = [sys.executable, "-c", KILLED, pickle.dumps(kept.place).hex(), at]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"stopped\n"
        eventually(lambda: len(kept.raw()) > len(before), "a file of the writer's")
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert not [path for path in kept.raw() if path.endswith(MANIFEST) and path not in before]
    for reader in (store, kept.store()):
        assert (newest(reader).step, reader.steps(), reader.problems) == (10, (10,), [])
    save(store, 30)
    assert store.steps() == (30, 10)
    assert len(kept.raw()) == 4, "what it had left is gone"


def test_a_reader_beside_a_writer_always_finds_a_whole_one(kept: Kept) -> None:
    writer, reader = kept.store(keep=1), kept.store(keep=1)
    save(writer, 0)
    done = threading.Event()

    def write() -> None:
        try:
            for step in range(1, 30):
                save(writer, step)
        finally:
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
    assert newest(reader).step == 29


def test_what_is_below_a_place_is_listed(kept: Kept) -> None:
    for study, number in (("cola", "0"), ("cola", "10"), ("rte", "1")):
        save(CheckpointStore(kept.place / "checkpoints" / study / number), 1)
    assert open_store(kept.place / "checkpoints").children() == ("cola", "rte")
    assert open_store(kept.place / "checkpoints" / "cola").children() == ("0", "10")
    assert open_store(kept.place / "nothing").children() == ()


def test_a_place_that_can_be_used_is_left_as_it_was(kept: Kept) -> None:
    check(kept.place / "probe")
    assert kept.raw() == {}


def test_a_store_that_is_not_known_is_told_with_those_that_are() -> None:
    with pytest.raises(StorageError, match=r"no store is known for moon://x: known are a folder and s3://"):
        open_store(stores.Address("moon://x"))


def test_what_is_damaged_is_no_outage(kept: Kept) -> None:
    save(kept.store(), 10)
    kept.write(f"{newest(kept.store()).name}/{MANIFEST}", json.dumps({"step": 10}).encode())
    store = kept.store()
    assert store.newest() is None
    assert len(store.problems) == 1
    with pytest.raises(ChecksumError, match="cannot be read"):
        store.at(10)
