"""What is particular to a kind of cluster: how jobs are started there, found and ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunery.client import Preview
from tunery.parcel import Parcel


@dataclass(frozen=True)
class Job:
    """One job of a run."""

    id: str
    run: str
    alive: bool
    """It waits or works."""
    waiting: bool = False
    stopped: bool = False
    """It has ended because it was asked to."""
    succeeded: bool = False
    """It has ended as a run that has finished does."""
    why: str = ""
    """Of one that has failed."""
    started_at: float = 0.0
    """Seconds since the epoch."""


class Jobs(Protocol):
    """What a cluster has to offer."""

    def all(self) -> Sequence[Job]:
        """Those of tunery, the oldest first."""

    def parcel(self, job: Job) -> Parcel:
        """What the job was sent with."""

    def preview(self, job: str, parcel: Parcel) -> Preview:
        """What `submit` sends."""

    def submit(self, job: str, parcel: Parcel) -> bool:
        """Send it; False where there was a job of this id already."""

    def stop(self, job: Job) -> None:
        """Ask it to end; may be asked again. Its processes are ended after STOP_GRACE_S."""

    def output(self, job: Job) -> str:
        """What it has printed so far."""
