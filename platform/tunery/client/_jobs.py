"""What is particular to a kind of cluster: how jobs are started there, found and ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunery.client import STOP_GRACE_S, Preview
from tunery.parcel import Parcel

# -P: the folder that a cluster's processes happen to be in is no place to import from.
ENTRYPOINT = "exec python -P -m tunery.cluster.job"
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": f"{STOP_GRACE_S:.0f}"}
"""Of the job. Without it Ray would end a run's processes 3 s after it was asked to stop, its checkpoints unwritten."""
ERROR = "error: "
"""What begins the line in a job's log that says why it has failed."""


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


def why_of(message: str, code: int | None = None) -> str:
    """What a failed job of Ray's says of itself: its own error, or the last words of its log."""
    lines = [line for line in message.splitlines() if line.strip()]
    own = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    if own:
        return own[-1]
    ended = f"the job has ended with exit code {code}" if code is not None else "the job has failed"
    return f"{ended}: {lines[-1].strip()}" if lines else ended
