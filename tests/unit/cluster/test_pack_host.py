"""What the host of a pack tells its trials."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from tunery.cluster.messages import SeatName
from tunery.cluster.pack_host import _Host, _Seat


class RunsOut:
    """A pack whose memory runs out in its first step."""

    max_tokens = 400

    def step(self) -> dict[str, Any]:
        self.max_tokens = 100
        return {}


@pytest.fixture
def host(tmp_path: Path) -> _Host:
    """With two seats."""
    there: Any = _Host(MagicMock())
    there.speaks, there.pack = True, RunsOut()
    for number in range(2):
        order: Any = SimpleNamespace(name=SeatName("cola", number))
        log = tmp_path / f"{number}.log"
        there.seats[order.name] = _Seat(order, MagicMock(), MagicMock(), MagicMock(), log, [])
    return there  # type: ignore[no-any-return]


def test_memory_that_runs_out_is_in_every_trials_log_once(host: _Host, tmp_path: Path) -> None:
    for _ in range(2):
        host._step()
    for number in range(2):
        (line,) = (tmp_path / f"{number}.log").read_text().splitlines()
        assert line.endswith("out of memory: forwards have at most 100 tokens from now on")
