"""What to do when a pack dies: Failure -> Decision. Pure, so that the policy is a table in a test."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cause(Enum):
    """Why a pack ended without being asked to."""

    WORKER_DIED = "its process died"
    NODE_LOST = "its node was lost"
    PREEMPTED = "its node was taken back"
    HOST_MEMORY = "the host ran out of memory"
    DEVICE_MEMORY = "the device ran out of memory"
    UNREACHABLE = "what it needs from elsewhere does not answer"
    CONFIGURATION = "it cannot be run as configured"
    UNKNOWN = "an error that is not known here"


@dataclass(frozen=True)
class Failure:
    """One failure. `attempt` counts the failures of this pack so far, this one included."""

    cause: Cause
    detail: str
    attempt: int


@dataclass(frozen=True)
class Restart:
    """Start the pack again; its seats go on from their newest checkpoints."""

    smaller: bool = False
    """With half the tokens a forward pass (same effective batch)."""


@dataclass(frozen=True)
class GiveUp:
    """Fail the seats, saying why."""

    why: str


Decision = Restart | GiveUp

MAX_ATTEMPTS = 4
"""Failures of one pack after which it is given up; preemptions do not count."""


def decide(failure: Failure) -> Decision:
    """The policy: what comes from outside is tried again, what would only happen again is not."""
    match failure.cause:
        case Cause.CONFIGURATION:
            return GiveUp(failure.detail)
        case Cause.PREEMPTED:
            return Restart()
        case _ if failure.attempt >= MAX_ATTEMPTS:
            return GiveUp(
                f"the pack failed {failure.attempt} times; the last time, {failure.cause.value}: {failure.detail}"
            )
        case Cause.DEVICE_MEMORY | Cause.HOST_MEMORY:
            return Restart(smaller=True)
        case _:
            return Restart()
