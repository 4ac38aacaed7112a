"""What of MLflow's server a client of a cluster reads, in memory: runs of ours with their artifacts and tags."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tunery import mirrored


@dataclass
class Entry:
    """A run of ours."""

    tags: dict[str, str]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Tracking:
    """What was told."""

    entries: dict[str, Entry] = field(default_factory=dict)
    url: str = ""

    def tell(self, run: str, job: str, *, plan: bytes = b"{}", log: str = "", **state: Any) -> None:
        """As a run's job does."""
        tags = {mirrored.KIND: mirrored.SWEEP, mirrored.RUN: run, mirrored.JOB: job}
        entry = self.entries.setdefault(run, Entry({}))
        entry.tags |= tags
        told = {"run_id": run, "name": run.rpartition("-")[0], **state}
        entry.files |= {mirrored.PLAN: plan, mirrored.STATE: json.dumps(told).encode()}
        if log:
            entry.files[f"{mirrored.DRIVER_LOG}/{mirrored.segment(0)}"] = log.encode()


@contextmanager
def serving(tracking: Tracking) -> Iterator[Tracking]:
    """Serve on a free port of this machine for as long as the context lasts."""

    class Bound(_Handler):
        state = tracking

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    tracking.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield tracking
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Tracking
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the second

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's own name)
        """Quiet."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path.removeprefix("/api/2.0/mlflow"):
            case "/health":
                self._send(b"OK")
            case "/experiments/get-by-name":
                self._send({"experiment": {"experiment_id": "1"}})
            case "/artifacts/list":
                files = self.state.entries[query["run_id"]].files
                inside = {name: len(content) for name, content in files.items() if name.startswith(f"{query['path']}/")}
                self._send({"files": [{"path": name, "file_size": size} for name, size in inside.items()]})
            case "/get-artifact":
                self._send(self.state.entries[query["run_uuid"]].files[query["path"]])
            case _:
                self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/runs/set-tag"):
            self.state.entries[body["run_id"]].tags[body["key"]] = body["value"]
            self._send({})
            return
        wanted = re.search(rf"`{mirrored.RUN}` = '([^']*)'", body["filter"])
        self._send(
            {
                "runs": [
                    {
                        "info": {"run_id": run, "start_time": 1},
                        "data": {"tags": [{"key": key, "value": value} for key, value in entry.tags.items()]},
                    }
                    for run, entry in self.state.entries.items()
                    if wanted is None or wanted[1] == run
                ]
            }
        )

    def _send(self, content: bytes | dict[str, Any]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
