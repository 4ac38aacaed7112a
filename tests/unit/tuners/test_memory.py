"""What a process took of memory at most, measured on this one."""

from __future__ import annotations

import sys

import pytest
import torch

from tuners.engine import forget_peak, peak_bytes

CPU = torch.device("cpu")
MANY = 400 * 2**20


def block(size: int) -> torch.Tensor:
    """Of so many bytes, all of them written."""
    return torch.ones(size, dtype=torch.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system resets a process's peak")
def test_a_peak_is_forgotten_and_the_next_one_found() -> None:
    del_me = block(MANY)
    most = peak_bytes(CPU)
    del del_me
    assert peak_bytes(CPU) > most - 0.1 * MANY  # Linux counts in strides
    forget_peak(CPU)
    left = peak_bytes(CPU)
    assert left < most - 0.9 * MANY
    half = block(MANY // 2)
    assert left + 0.4 * MANY < peak_bytes(CPU) < most
    del half
