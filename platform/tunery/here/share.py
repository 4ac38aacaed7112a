"""What each Ray node of this machine may use: the machine's CPUs and memory, dealt out.

Ray itself would give every node all of them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunery.errors import InputError, UnreachableError

STORE_SHARE, WORK_SHARE = 0.3, 0.7
"""Of the free memory: for Ray's objects and for what its processes hold, as Ray divides it."""
SHARED_SHARE = 0.9
"""Of the free shared memory: a store that does not fit there is slow."""
LEAST_STORE = 80 * 1024 * 1024
"""Bytes; Ray takes no smaller one."""


@dataclass(frozen=True)
class Share:
    """One node's."""

    cpus: int
    memory: int
    """Bytes that its processes may reserve."""
    object_store: int
    """Bytes."""


def shares(nodes: int, *, cpus: int, memory: int, shared: int) -> tuple[Share, ...]:
    """One for each node; the first ones have a CPU more where it does not divide.

    `memory`, `shared`: bytes that are free, in all and of shared memory. InputError where nodes are left without a CPU.
    """
    if cpus < nodes:
        raise InputError(
            f"{cpus} CPUs cannot be dealt to {nodes} nodes, the head among them: at most --workers {cpus - 1}"
        )
    each, more = divmod(cpus, nodes)
    store = max(int(min(STORE_SHARE * memory, SHARED_SHARE * shared) / nodes), LEAST_STORE)
    return tuple(
        Share(each + (number < more), max(int(WORK_SHARE * memory / nodes), LEAST_STORE), store)
        for number in range(nodes)
    )


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> tuple[int, int]:
    """Bytes that processes may still take, and those of shared memory. UnreachableError where the system is silent."""
    memory = available_memory()
    if memory is None:
        raise UnreachableError("how much memory this machine has free is not known: /proc/meminfo cannot be read")
    folder = Path("/dev/shm")
    return memory, shutil.disk_usage(folder).free if folder.is_dir() else memory


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes, a container's limit included; None where the system does not tell."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit ("max"), or no cgroup v2
        return free
    return min(free, max(0, limit - used))
