"""What of MLflow's server a client of a cluster reads, in memory: runs of ours with their artifacts and tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.stand_ins.listening import listening
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
    away: bool = False
    """It answers as a proxy does before a server that is not there."""
    asked: list[str] = field(default_factory=list)
    """The path of every request, with its query."""
    url: str = ""

    def tell(self, run: str, job: str, *, plan: bytes = b"{}", log: str = "", **state: Any) -> None:
        """As a run's job does."""
        tags = {mirrored.KIND: mirrored.SWEEP, mirrored.RUN: run, mirrored.JOB: job}
        told = {"run_id": run, "name": run.rpartition("-")[0], **state}
        files = {mirrored.PLAN: plan, mirrored.STATE: json.dumps(told).encode()}
        if log:
            files[f"{mirrored.DRIVER_LOG}/{mirrored.segment(0)}"] = log.encode()
        # The tags last: who reads meanwhile finds a run as it was, or all of it.
        entry = self.entries.setdefault(run, Entry({**tags}, files))
        entry.files |= files
        entry.tags |= tags


@contextmanager
def serving(tracking: Tracking, certificate: Path | None = None) -> Iterator[Tracking]:
    """Serve on a free port of this machine for as long as the context lasts; `certificate`: over TLS."""

    class Bound(_Handler):
        state = tracking

    with listening(Bound, certificate) as tracking.url:
        yield tracking


class _Handler(BaseHTTPRequestHandler):
    state: Tracking
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the second

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's own name)
        """Quiet."""

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        if self.state.away:
            self.send_error(503)
            return
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
                content = self.state.entries[query["run_uuid"]].files.get(query["path"])
                self.send_error(404) if content is None else self._send(content)
            case _:
                self.send_error(404)

    def do_POST(self) -> None:
        self.state.asked.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.state.away:
            self.send_error(503)
            return
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
                        "data": {"tags": [{"key": key, "value": value} for key, value in {**entry.tags}.items()]},
                    }
                    for run, entry in [*self.state.entries.items()]
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
