"""What servers of this machine take while a benchmark has them work: CPU seconds, of what listens on a port."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence

import psutil


class Servers:
    """By name; each is all processes that listen on its port, and what is below them, ended ones included."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        """SystemExit where nothing listens on one of them."""
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN and each.pid]
        found = {
            name: {each.pid for each in listening if each.laddr and each.laddr.port == port}
            for name, port in ports.items()
        }
        if silent := [f"{name}={ports[name]}" for name, pids in found.items() if not pids]:
            raise SystemExit(f"nothing of this machine's listens on {', '.join(silent)}")
        self._processes = {name: [psutil.Process(pid) for pid in pids] for name, pids in found.items()}

    def cpu(self) -> dict[str, float]:
        """Seconds since each began."""
        return {name: _seconds(processes) for name, processes in self._processes.items()}


def since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cpu-of", action="append", default=[], metavar="NAME=PORT", help="server of this machine, whose CPU is told"
    )


def given(options: Sequence[str]) -> Servers:
    """Those of `--cpu-of`."""
    return Servers({name: int(port) for name, _, port in (each.partition("=") for each in options)})


def _seconds(roots: Iterable[psutil.Process]) -> float:
    processes = {each.pid: each for root in roots for each in (root, *root.children(recursive=True))}
    ended = sum(times.children_user + times.children_system for times in (root.cpu_times() for root in roots))
    return ended + sum(_own(process) for process in processes.values())


def _own(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
