"""A sweep whose checkpoints are in an object store, on a real Ray and a real S3 server."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.checkpoints import CheckpointStore
from storage.stores import Address
from tests.object_store import OWNER, ObjectStore
from tests.ray.conftest import Begin, eventually
from tunery.inference.source import locate

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("s3_key")]


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Address:
    """The place of a profile that is the default one."""
    address = object_store.address()
    config, key = tmp_path / "config.toml", tmp_path / "key"
    key.write_text(OWNER.secret)
    config.write_text(
        f"""default = "team"
[profiles.team]
store = "{address}"
[profiles.team.s3]
endpoint = "{object_store.endpoint}"
[profiles.team.secrets]
AWS_SECRET_ACCESS_KEY = {{file = "{key}"}}
"""
    )
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    return address


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray writes; its name is short, since it is part of the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder)


def test_a_pack_that_dies_goes_on_from_the_bucket_and_no_key_is_left_anywhere(
    begin: Begin, bucket: Address, ray_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"epochs": 1, "batch_size": 2, "checkpoint": {"every_steps": 5}}
    sweep = begin(train=train, search__trials=1, search__space={}, resources__seats=1)
    with monkeypatch.context() as driver:
        driver.delenv("AWS_SECRET_ACCESS_KEY")  # it is found by the profile
        sweep.start()
    eventually(lambda: isinstance(sweep.folder.store, Address), "the store that the run keeps")
    store = CheckpointStore(sweep.folder.checkpoints("cola", 0))
    eventually(store.newest, "a checkpoint in the bucket")
    (held,) = sweep.pack_processes()
    os.kill(held, signal.SIGKILL)
    assert sweep.wait() == 0, sweep.folder.driver_log.read_text()

    log = sweep.folder.trial_log("cola", 0).read_text()
    first, second = map(int, re.findall(r"at step (\d+) of 48:", log))
    assert (first, second % 5) == (0, 0)
    assert second > 0, "it went on where it was"
    assert str(sweep.folder.store).startswith(f"{bucket}/{sweep.folder.run_id}-")
    assert store.steps()[0] == 48
    assert not (sweep.folder.root / "checkpoints").exists()
    assert sweep.study().model_version == "1"

    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    source = locate(f"{sweep.folder.run_id}/cola/0", home=sweep.home)
    assert (source.folder / "adapter_model.safetensors").exists(), "read from the bucket, with the profile's key"

    logs = [path for path in ray_folder.rglob("*") if path.is_file()]
    assert logs
    files = [*logs, *(path for path in tmp_path.rglob("*") if path.is_file() and path != tmp_path / "key")]
    assert not [path for path in files if OWNER.secret.encode() in path.read_bytes()]
