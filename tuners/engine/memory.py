"""What a training process asks of its allocator, and what it took of memory at most."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""
_PROCESS = Path("/proc/self")


def keep_freed_memory() -> None:
    """Let malloc keep what a step frees; for a process that does nothing else than train, on a CPU.

    By default glibc gives large blocks back to the system, and the next step's activations are faulted in page by page.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)


def peak_bytes(device: torch.device) -> int:
    """The most that was taken since the start or the last `forget_peak`: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # Other systems count in bytes or in KiB, from the start of the process on, or of the one that it was made from.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak(device: torch.device) -> None:
    """Give back what is not used any more, and count the peak from what is left. It stays where a system cannot."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets VmHWM to what is resident
