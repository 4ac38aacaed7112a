"""Real servers of this machine for tests, each ended by the ids of its own processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

PATIENCE_S = 120.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class MlflowServer:
    """`mlflow server` on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        self.artifacts = folder / "kept by the server"
        (self.port,) = free_ports(1)
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
                   "--workers", "1", "--backend-store-uri", f"sqlite:///{self.database}",
                   "--artifacts-destination", str(self.artifacts)]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._healthy():
            assert time.monotonic() < deadline, self._log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with {self._process.wait(0.2)}: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # it and its worker: a session of their own
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class RayHead:
    """`ray start --head` with its dashboard, and a token that every request must have."""

    TOKEN = "a-token-of-the-tests-0123456789abcdef"

    def __init__(self, folder: Path, *, cpus: int, environment: dict[str, str]) -> None:
        self._log = folder / "ray.log"
        # Short: the names of its sockets have a limit.
        self._temporary = Path(tempfile.mkdtemp(prefix="ray"))
        self._cpus = cpus
        gcs, dashboard, *self._others = free_ports(6)
        self.jobs = f"http://127.0.0.1:{dashboard}"
        self._ports = {"--port": gcs, "--dashboard-port": dashboard}
        named = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--metrics-export-port",
                 "--ray-client-server-port")  # fmt: skip
        self._ports |= dict(zip(named, self._others, strict=True))
        self._environment = (
            os.environ
            | environment
            | {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": self.TOKEN,
                "RAY_USAGE_STATS_ENABLED": "0",
                # The `python` of a job is this one.
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ports = [word for name, port in self._ports.items() for word in (name, str(port))]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += ["--num-cpus", str(self._cpus), "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
        command += ["--include-dashboard", "true", "--disable-usage-stats", "--temp-dir", str(self._temporary), *ports]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert time.monotonic() < deadline, self._log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"ended with {self._process.wait(0.5)}: {self._log.read_text()}")

    def stop(self) -> None:
        if self._process is None:
            return
        own = psutil.Process(self._process.pid)
        mine = [own, *own.children(recursive=True)]
        for process in mine:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(mine, timeout=PATIENCE_S)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.jobs}/api/jobs/", headers={"Authorization": f"Bearer {self.TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
