"""Ports of this machine that are kept over restarts."""

from __future__ import annotations

import socket
from collections.abc import Collection
from random import Random

from tunery.errors import UnreachableError

LOWEST, HIGHEST = 20000, 31999
"""Below those that systems give to outgoing connections: one of these could take a port while its server is away."""
_ATTEMPTS = 1000


def is_free(port: int) -> bool:
    """Whether a server could listen there, on any of this machine's addresses."""
    with socket.socket() as probe:
        # As servers do: a connection that has just ended is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def choose(names: Collection[str], taken: Collection[int], random: Random) -> dict[str, int]:
    """A free port for each name, all different and none of `taken`. UnreachableError where there are none."""
    chosen: dict[str, int] = {}
    for name in names:
        for _ in range(_ATTEMPTS):
            port = random.randint(LOWEST, HIGHEST)
            if port not in taken and port not in chosen.values() and is_free(port):
                chosen[name] = port
                break
        else:
            raise UnreachableError(f"no port between {LOWEST} and {HIGHEST} of this machine is free for {name}")
    return chosen
