"""What an S3 store does when the server, the network or the key is not what it should be: a real server, broken."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from storage.checkpoints import CheckpointStore
from storage.errors import StorageError, StoreRefusedError, StoreUnreachableError
from storage.stores import MANIFEST, Address, check, open_store
from storage.stores.s3 import S3Store
from tests.object_store import OWNER, READER, Key, ObjectStore

pytestmark = pytest.mark.usefixtures("s3_key")

NO_SECOND = (3600.0,)
"""Waits of a store that must not try again: the test would not end."""


@pytest.fixture
def address(object_store: ObjectStore) -> Address:
    return object_store.address()


@pytest.fixture(autouse=True)
def _bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(S3Store, "waits_s", (0.05, 0.05))


@contextmanager
def stopped(server: ObjectStore) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def save(store: CheckpointStore, step: int) -> None:
    store.save(step, {"seat": f"state of {step}".encode()}, metrics={}, best=True)


def step_of(store: CheckpointStore) -> int:
    found = store.newest()
    assert found is not None
    return found.step


def test_a_server_that_stops_in_a_save_fails_it_and_keeps_the_last_good_one(
    object_store: ObjectStore, address: Address
) -> None:
    store = CheckpointStore(address)
    save(store, 10)

    class Stopping(dict[str, bytes]):
        def __getitem__(self, name: str) -> bytes:
            if name == MANIFEST:
                object_store.stop()
            return super().__getitem__(name)

    try:
        with pytest.raises(StoreUnreachableError) as caught:
            S3Store(address).commit("000002-step20", Stopping({"seat": b"x", MANIFEST: b"{}"}))
        for said in ("'tunery-tests'", object_store.endpoint, "3 times in", "see that it runs", "manifest.json"):
            assert said in str(caught.value)
        with pytest.raises(
            StoreUnreachableError, match=r"cannot save the checkpoint of step 20 in s3://.*does not answer"
        ):
            save(store, 20)
        with pytest.raises(StoreUnreachableError):
            store.newest()
        assert store.problems == [], "an outage is not taken for damage"
    finally:
        object_store.start()
    assert step_of(store) == 10
    save(store, 20)
    assert (store.steps(), store.problems) == ((20, 10), [])


def test_a_server_that_comes_back_meanwhile_is_waited_for(
    object_store: ObjectStore, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.stop()
    monkeypatch.setattr(S3Store, "waits_s", (0.1,) * 600)
    starting = threading.Thread(target=object_store.start)
    store = S3Store(address)
    starting.start()
    name = store.commit("000001-step10", {"seat": b"x", MANIFEST: b"{}"})
    starting.join()
    assert store.read(name, "seat") == b"x"


def test_a_server_that_hangs_is_given_up(
    object_store: ObjectStore, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(S3Store, "waits_s", (0.05,))  # a hung one is waited for at each
    store = S3Store(address)
    assert store.folders() == {}
    assert object_store.process is not None
    os.killpg(object_store.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnreachableError, match="does not answer, 2 times"):
            store.folders()
    finally:
        os.killpg(object_store.process.pid, signal.SIGCONT)
    assert store.folders() == {}


@pytest.mark.parametrize("key", [Key(OWNER.access, "canary-wrong"), Key("nobody", "canary-wrong"), READER])
def test_a_key_that_is_refused_is_not_tried_again(
    object_store: ObjectStore, address: Address, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(CheckpointStore(address), 10)
    for name, value in key.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(S3Store, "waits_s", NO_SECOND)
    with pytest.raises(StoreRefusedError) as caught:
        S3Store(address).commit("000002-step20", {"seat": b"x", MANIFEST: b"{}"})
    for said in ("'tunery-tests'", object_store.endpoint, "refuses", "AWS_SECRET_ACCESS_KEY", "AWS Error"):
        assert said in str(caught.value)
    with pytest.raises(
        StoreRefusedError, match=r"cannot save the checkpoint of step 20 in s3://.*the last good one is kept"
    ):
        save(CheckpointStore(address), 20)
    if key == READER:
        assert step_of(CheckpointStore(address)) == 10
        with pytest.raises(StoreRefusedError):
            check(address)
    else:
        with pytest.raises(StoreRefusedError, match="cannot list"):
            CheckpointStore(address).newest()


def test_a_key_that_is_changed_under_a_run_is_refused_until_it_is_changed_here_too(
    object_store: ObjectStore, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(address)
    save(store, 10)
    object_store.stop()
    changed = Key(OWNER.access, f"{OWNER.secret}-changed")
    try:
        object_store.start(owner=changed)
        with pytest.raises(StoreRefusedError, match="AWS_SECRET_ACCESS_KEY"):
            save(store, 20)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", changed.secret)
        save(store, 20)
        assert store.steps() == (20, 10)
    finally:
        object_store.stop()
        object_store.start()


def test_a_bucket_that_is_not_there_is_named(object_store: ObjectStore) -> None:
    nowhere = object_store.address("no-such-bucket")
    acts: tuple[Callable[[], None], ...] = (lambda: save(CheckpointStore(nowhere), 1), lambda: check(nowhere))
    for act in acts:
        with pytest.raises(
            StoreRefusedError, match=r"'no-such-bucket' at http://127.*there is no such bucket: create it"
        ):
            act()


def test_two_writers_of_which_one_was_given_up_mix_no_files(address: Address) -> None:
    stores = [S3Store(address) for _ in range(2)]
    names = [store.commit("000001-step10", {"seat": bytes([n]), MANIFEST: b"{}"}) for n, store in enumerate(stores)]
    assert len(set(names)) == 2
    assert [stores[0].read(name, "seat") for name in names] == [b"\x00", b"\x01"]


def test_what_was_not_named_here_is_never_collected(object_store: ObjectStore, address: Address) -> None:
    with object_store.files().open_output_stream(f"{address.url.removeprefix('s3://')}/somebody/file") as stream:
        stream.write(b"theirs")
    save(CheckpointStore(address), 10)
    assert open_store(address).children()[-1] == "somebody"


def test_no_secret_is_in_what_is_kept_said_or_logged(
    object_store: ObjectStore, address: Address, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    store = CheckpointStore(address)
    save(store, 10)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-wrong")
    said = [repr(address), str(address), repr(store.newest), repr(vars(open_store(address)))]
    for act in (store.newest, lambda: save(store, 20)):
        with pytest.raises(StorageError) as caught:
            act()
        said += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
    with stopped(object_store), pytest.raises(StorageError) as caught:
        S3Store(address).folders()
    said += [str(caught.value), caplog.text]
    content = pickle.dumps([address, caught.value])
    assert not [line for line in said if "canary" in line]
    assert b"canary" not in content
