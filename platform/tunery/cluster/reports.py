"""A seat's reports, and what it has counted since the last of them, as files of its checkpoint (see `tunery.runs`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tunery.cluster.messages import Report


@dataclass
class Counted:
    """What goes into a seat's next report, counted since the last one."""

    loss_sum: float = 0.0
    steps: int = 0
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Spent in steps."""

    def add(self, *, loss: float, examples: int, tokens: int, seconds: float) -> None:
        """One optimiser step."""
        self.loss_sum += loss
        self.steps += 1
        self.examples += examples
        self.tokens += tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        """Mean of the steps'."""
        return self.loss_sum / max(1, self.steps)

    @property
    def examples_per_s(self) -> float:
        return self.examples / max(self.seconds, 1e-9)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Counted:
        """JSON keeps every digit of a float: the sum goes on as if nothing had been."""
        return cls(**json.loads(content))


def write_reports(reports: Sequence[Report]) -> bytes:
    return json.dumps([asdict(report) for report in reports]).encode()


def read_reports(content: bytes) -> list[Report]:
    return [Report(**report) for report in json.loads(content)]
