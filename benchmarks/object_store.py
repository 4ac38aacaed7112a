"""What a checkpoint's commit asks of an object store: requests by their kind, bytes, and the server's CPU.

    export AWS_ACCESS_KEY_ID=benchmark AWS_SECRET_ACCESS_KEY=of-no-further-use
    weed server -dir=/tmp/weed -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3 -s3.port=8333 &
    python -m benchmarks.object_store --endpoint http://127.0.0.1:8333 --cpu-of server=8333

Real: the store of checkpoints and the server (any that speaks S3; SeaweedFS here, which comes with the extra dev). Made
up: the content. Between them stands a relay that counts, and changes nothing. Commits are measured once as many are
kept as are to be, so that each removes one; they are deleted at the end, and the bucket stays.
"""

from __future__ import annotations

import argparse
import http.client
import os
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

from benchmarks import servers
from benchmarks.report import machine, progress, save, table
from storage.checkpoints import CheckpointStore
from storage.stores import Address

WIDTH = 4
"""Bytes of a parameter, and of each of its two moments."""
SMALL = {"reports.json": 4096, "counted.json": 128, "of.json": 256}
SORTS = {"a checkpoint": False, "the best so far": True}
_POSTS = {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload", "delete": "DeleteObjects"}
_DROPPED = ("expect", "connection", "transfer-encoding")
"""Headers that are between two neighbours, and none of the message's."""


@dataclass
class Counted:
    """What has passed the relay."""

    requests: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    received: int = 0
    """Bytes of bodies, to the server and from it."""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, sent: int, received: int) -> None:
        with self.guard:
            self.requests[kind] += 1
            self.sent += sent
            self.received += received


def kind_of(method: str, path: str) -> str:
    """A request, as S3's documentation calls it."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    match method:
        case "GET":
            return "ListObjectsV2" if "list-type" in query else "GetObject"
        case "PUT":
            return "UploadPart" if "partNumber" in query else "PutObject"
        case "POST":
            return next((name for key, name in _POSTS.items() if key in query), "POST")
        case "DELETE":
            return "DeleteObject"
        case "HEAD":
            return "HeadObject"
        case _:
            return method


@contextmanager
def relay(endpoint: str, counted: Counted) -> Iterator[str]:
    """The URL of one before the server at the endpoint."""
    there = urlsplit(endpoint).netloc

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.server_side = http.client.HTTPConnection(there)

        def finish(self) -> None:
            self.server_side.close()
            super().finish()

        def pass_on(self) -> None:
            body = self._body()
            self.server_side.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _DROPPED:
                    self.server_side.putheader(name, value)
            if self.headers.get("Transfer-Encoding"):
                self.server_side.putheader("Content-Length", str(len(body)))
            self.server_side.endheaders(body)
            answer = self.server_side.getresponse()
            content = answer.read()
            counted.add(kind_of(self.command, self.path), len(body), len(content))
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in (*_DROPPED, "content-length"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", size or str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on  # noqa: N815  (the names are the base class's)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return found

        def log_message(self, *_: Any) -> None:
            """Not a line a request."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def measured(
    address: Address, counted: Counted, watched: servers.Servers, *, parameters: int, commits: int
) -> dict[str, dict[str, Any]]:
    """By sort of checkpoint: of one commit, the mean of several."""
    store = CheckpointStore(address)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        state, adapter = Path(scratch, "state.safetensors"), Path(scratch, "adapter_model.safetensors")
        state.write_bytes(os.urandom(3 * WIDTH * parameters))
        adapter.write_bytes(os.urandom(WIDTH * parameters))
        steps = iter(range(1, 1 << 30))

        def commit(*, best: bool) -> None:
            files: dict[str, bytes | Path] = {name: os.urandom(size) for name, size in SMALL.items()}
            files |= {state.name: state} | ({adapter.name: adapter} if best else {})
            store.save(next(steps), files, metrics={"mcc": 0.5}, best=best)

        for sort, best in SORTS.items():
            for _ in range(store.keep + 1):
                commit(best=best)
            before, sent, received = counted.requests.copy(), counted.sent, counted.received
            cpu, began = watched.cpu(), time.monotonic()
            for _ in range(commits):
                commit(best=best)
            found[sort] = {
                "requests": {kind: count / commits for kind, count in (counted.requests - before).items()},
                "sent_mb": (counted.sent - sent) / commits / 1e6,
                "received_mb": (counted.received - received) / commits / 1e6,
                "wall_s": (time.monotonic() - began) / commits,
                "cpu_s": {name: s / commits for name, s in servers.since(cpu, watched.cpu()).items()},
            }
            progress(f"{sort}: {found[sort]}")
    return found


def told(found: dict[str, dict[str, Any]]) -> str:
    kinds = sorted({kind for each in found.values() for kind in each["requests"]})
    rows = [[kind, *(f"{each['requests'].get(kind, 0):g}" for each in found.values())] for kind in kinds]
    rows.append(["requests in all", *(f"{sum(each['requests'].values()):g}" for each in found.values())])
    for key, name in (("sent_mb", "MB sent"), ("received_mb", "MB received"), ("wall_s", "s, with the relay")):
        rows.append([name, *(f"{each[key]:.2f}" for each in found.values())])
    watched = next(iter(found.values()))["cpu_s"]
    rows += [[f"CPU s of {name}", *(f"{each['cpu_s'][name]:.2f}" for each in found.values())] for name in watched]
    return table(["of one commit", *found], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--endpoint", required=True, help="the server, http://HOST:PORT; its key is in the environment")
    parser.add_argument("--bucket", default="tunery-benchmarks", help="made where it is not there")
    parser.add_argument("--parameters", type=int, default=4_358_144, help="of the adapter")
    parser.add_argument("--commits", type=int, default=8, help="of each sort")
    servers.add_option(parser)
    parser.add_argument("--name", default="object_store", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    where, watched = machine(), servers.given(options.cpu_of)
    files = fs.S3FileSystem(scheme="http", endpoint_override=urlsplit(options.endpoint).netloc, region="us-east-1",
                            allow_bucket_creation=True)  # fmt: skip
    files.create_dir(options.bucket)
    place, counted = f"{options.bucket}/{uuid.uuid4().hex}", Counted()
    try:
        with relay(options.endpoint, counted) as endpoint:
            address = Address(f"s3://{place}", {"endpoint": endpoint})
            found = measured(address, counted, watched, parameters=options.parameters, commits=options.commits)
    finally:
        files.delete_dir(place)
    print(told(found))
    print(f"written: {save(options.name, {'machine': where, 'parameters': options.parameters, 'found': found})}")


if __name__ == "__main__":
    main()
