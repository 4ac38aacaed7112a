"""Ray's Jobs API in memory: what its dashboard answers, in its own words; what becomes of a job a test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.stand_ins.listening import listening

Object = dict[str, Any]

PENDING = "Job has not started yet. It may be waiting for the runtime environment to be set up."
SAID = {
    "RUNNING": "Job is currently running.",
    "STOPPED": "Job was intentionally stopped.",
    "SUCCEEDED": "Job finished successfully.",
}
_FIELDS = {"entrypoint", "submission_id", "runtime_env", "metadata"}
"""Of a request, of those that Ray knows; it refuses any that it does not know."""
_SOMEBODY: Object = {
    "type": "DRIVER", "job_id": "01000000", "submission_id": None, "status": "RUNNING", "entrypoint": "python",
    "message": None, "start_time": 1, "metadata": {}, "driver_exit_code": None,
}  # fmt: skip
"""A driver that somebody has started by hand: Ray lists it among the jobs."""


@dataclass
class JobsApi:
    """The jobs of one cluster."""

    token: str = "the-right-token"
    jobs: dict[str, Object] = field(default_factory=dict)
    """Submission id -> what is told of it, the oldest first."""
    logs: dict[str, str] = field(default_factory=dict)
    stopping: set[str] = field(default_factory=set)
    """Those that were asked to stop."""
    asked: list[str] = field(default_factory=list)
    """`METHOD path` of every request."""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def operate(self, job: str, status: str, *, code: int | None = None, log: str = "") -> None:
        """As the job's supervisor does."""
        self.logs[job] = self.logs.get(job, "") + log
        tail = self.logs[job]
        failed = f"Job entrypoint command failed with exit code {code}, "
        failed += f"last available logs (truncated to 20,000 chars):\n{tail}" if tail else "No logs available."
        message = SAID.get(status, failed)
        self.jobs[job] = {**self.jobs[job], "status": status, "message": message, "driver_exit_code": code}

    def submit(self, request: Object) -> tuple[int, str]:
        job = request.get("submission_id")
        if not isinstance(job, str) or not {"entrypoint"} <= request.keys() <= _FIELDS:
            return 400, "Traceback (most recent call last):\nTypeError: JobSubmitRequest.__init__() got an unexpected\n"
        with self.lock:
            if job in self.jobs:  # the head tells what the agent has refused as a fault of its own
                said = f"ValueError: Job with submission_id {job} already exists. Please use a different submission_id."
                return (
                    500,
                    f"Traceback (most recent call last):\nRuntimeError: Request failed with status code 400: {said}.\n",
                )
            self.jobs[job] = {
                "type": "SUBMISSION", "job_id": None, **request, "status": "PENDING", "message": PENDING,
                "error_type": None, "start_time": int(time.time() * 1000), "end_time": None, "driver_exit_code": None,
            }  # fmt: skip
        return 200, json.dumps({"job_id": job, "submission_id": job})


@contextmanager
def serving(api: JobsApi, certificate: Path | None = None) -> Iterator[JobsApi]:
    """Serve on a free port of this machine for as long as the context lasts; `certificate`: over TLS."""

    class Bound(_Handler):
        state = api

    with listening(Bound, certificate) as api.url:
        yield api


class _Handler(BaseHTTPRequestHandler):
    state: JobsApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the second

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's own name)
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.state.asked.append(f"{self.command} {self.path}")
        code, text = self._found(json.loads(body) if body else {})
        data = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _found(self, body: Object) -> tuple[int, str]:
        state = self.state
        given = self.headers.get("Authorization")
        if given != f"Bearer {state.token}":
            return (403, "Forbidden: Invalid authentication token") if given else (401, "Unauthorized: Missing token")
        job, _, rest = unquote(urlsplit(self.path).path).removeprefix("/api/jobs/").partition("/")
        if not job:
            listed = json.dumps([*state.jobs.values(), _SOMEBODY])
            return (200, listed) if self.command == "GET" else state.submit(body)
        if job not in state.jobs:
            return 404, f"Job {job} does not exist"
        match self.command, rest:
            case "GET", "":
                return 200, json.dumps(state.jobs[job])
            case "GET", "logs":
                return 200, json.dumps({"logs": state.logs.get(job, "")})
            case "POST", "stop":
                alive = state.jobs[job]["status"] in ("PENDING", "RUNNING")
                if alive:
                    state.stopping.add(job)
                return 200, json.dumps({"stopped": alive})
            case _:
                return 405, "405: Method Not Allowed"
