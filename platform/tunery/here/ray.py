"""Ray of this machine: a head with its dashboard, and further nodes, all with one token.

The dashboard listens on 127.0.0.1. Agents listen on the machine's own address too, which Ray takes for 127.0.0.1, and
Ray's own ports on every address; all of them ask for the token.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import httpx

from tunery.here.layout import Layout
from tunery.here.part import Launch, inherited
from tunery.here.share import Share

TOKEN_FILE = "ray-token"
HEAD = "ray-head"
_TIMEOUT_S = 5.0
_AGENT = {"--dashboard-agent-listen-port": "agent", "--dashboard-agent-grpc-port": "agent-grpc",
          "--metrics-export-port": "metrics"}  # fmt: skip
_HEAD = {"--port": "gcs", "--dashboard-port": "dashboard", "--ray-client-server-port": "client"}
LINK = "r"
"""In the short folder; leads to Ray's own."""


def node_name(number: int) -> str:
    """Of a node beside the head, from 1."""
    return f"ray-node-{number}"


class _Node:
    """What the head and the others share."""

    # Ray gives its own processes 30 s to answer, which a busy machine may not do, and ends them.
    start_s, starts, end_s = 120.0, 3, 40.0
    # It leaves its cluster and ends what it has started.
    end_signal = signal.SIGTERM

    def __init__(
        self, layout: Layout, name: str, ports: Mapping[str, int], share: Share, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._layout = layout
        self._ports = ports
        self._share = share
        self._environment = environment
        self.log = layout.log(name)

    def prepare(self) -> None:
        self._layout.secret(TOKEN_FILE)

    def _launch(self, options: Mapping[str, object]) -> Launch:
        given = {
            **options,
            **{option: self._ports[purpose] for option, purpose in _AGENT.items()},
            "--node-name": self.name,
            "--node-ip-address": "127.0.0.1",
            # Any that are free: nodes of one machine would take the same ones from a range.
            "--min-worker-port": 0,
            "--max-worker-port": 0,
            "--num-cpus": self._share.cpus,
            "--memory": self._share.memory,
            "--object-store-memory": self._share.object_store,
        }
        command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += [word for option, value in given.items() for word in (option, str(value))]
        environment = {
            "RAY_AUTH_MODE": "token",
            # Before it ends it waits until nothing works on it, of itself for 30 s. Requests to models that are served
            # are answered sooner, and runs go on from their checkpoints.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "3",
            "RAY_AUTH_TOKEN_PATH": str(self._layout.secret_file(TOKEN_FILE)),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The `python` of a job is this one.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            **self._environment,
        }
        return Launch(command, inherited() | environment, self._layout.root)

    def _agents_trouble(self) -> str:
        """Whether the node's raylet is there and its head knows it, as its agent has it, which asks for no token."""
        try:
            url = f"http://127.0.0.1:{self._ports['agent']}/api/local_raylet_healthz"
            answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return "" if answer.status_code == 200 else f"its node is not well: HTTP {answer.status_code}, {answer.text}"


class Head(_Node):
    """See `tunery.here.part.Part`. `folder`: Ray's own, by a short name; see `short_folder`."""

    title = "Ray's head"
    PORTS = (*_HEAD.values(), *_AGENT.values())

    def __init__(
        self,
        layout: Layout,
        ports: Mapping[str, int],
        share: Share,
        environment: Mapping[str, str],
        *,
        folder: Path,
    ) -> None:
        super().__init__(layout, HEAD, ports, share, environment)
        self._folder = folder
        self.address = f"http://127.0.0.1:{ports['dashboard']}"

    def launch(self) -> Launch:
        options = {option: self._ports[purpose] for option, purpose in _HEAD.items()}
        launch = self._launch(options | {"--include-dashboard": "true", "--dashboard-host": "127.0.0.1",
                                         "--temp-dir": self._folder})  # fmt: skip
        return Launch([*launch.command, "--head"], launch.environment, launch.folder)

    def trouble(self) -> str:
        url, token = f"{self.address}/api/jobs/", self._layout.secret(TOKEN_FILE)
        try:
            with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
                if (status := client.get(url).status_code) != 401:
                    return f"its Jobs API answers HTTP {status} to who has no token, and not 401"
                if (status := client.get(url, headers={"Authorization": f"Bearer {token}"}).status_code) != 200:
                    return f"its Jobs API answers HTTP {status} to its own token"
        except httpx.HTTPError as error:
            return str(error) or type(error).__name__
        return self._agents_trouble()


class Node(_Node):
    """See `tunery.here.part.Part`."""

    PORTS = tuple(_AGENT.values())

    def __init__(
        self,
        layout: Layout,
        number: int,
        ports: Mapping[str, int],
        share: Share,
        environment: Mapping[str, str],
        *,
        head: int,
    ) -> None:
        super().__init__(layout, node_name(number), ports, share, environment)
        self.title = f"Ray's node {number}"
        self._head = f"127.0.0.1:{head}"
        self.address = f"http://127.0.0.1:{ports['agent']}"

    def launch(self) -> Launch:
        # The head has the machine's devices: each node would take all of them for its own.
        return self._launch({"--address": self._head, "--num-gpus": 0})

    def trouble(self) -> str:
        return self._agents_trouble()


def short_folder(layout: Layout, before: str) -> tuple[str, Path]:
    """A folder whose name is short enough for Ray's sockets, and the path through it to Ray's own below the layout.

    `before`: the one that there was, which is used again if it still leads there.
    """
    own = layout.root / "ray"
    own.mkdir(mode=0o700, exist_ok=True)
    link = Path(before) / LINK
    if before and link.is_symlink() and link.readlink() == own and link.parent.stat().st_uid == os.getuid():
        return before, link
    # Made by mkdtemp, so that nobody else can put another in its place.
    folder = tempfile.mkdtemp(prefix="tunery-", dir="/tmp")
    link = Path(folder) / LINK
    link.symlink_to(own)
    return folder, link


def remove_short_folder(folder: str) -> None:
    """What it leads to stays."""
    if folder and (Path(folder) / LINK).is_symlink():
        shutil.rmtree(folder)
