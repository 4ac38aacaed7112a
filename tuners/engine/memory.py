"""What a training process asks of its allocator."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees; for a process that does nothing else than train, on a CPU.

    By default glibc gives large blocks back to the system, and the next step's activations are faulted in page by page.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)
