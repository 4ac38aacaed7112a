"""The retry policy, as a table."""

from __future__ import annotations

import pytest

from tunery.cluster.retry import MAX_ATTEMPTS, Cause, Failure, GiveUp, Restart, decide


@pytest.mark.parametrize(
    ("cause", "attempt", "decision"),
    [
        (Cause.WORKER_DIED, 1, Restart()),
        (Cause.WORKER_DIED, MAX_ATTEMPTS - 1, Restart()),
        (Cause.NODE_LOST, 1, Restart()),
        (Cause.UNKNOWN, 1, Restart()),
        (Cause.DEVICE_MEMORY, 1, Restart(smaller=True)),
        (Cause.HOST_MEMORY, 2, Restart(smaller=True)),
        (Cause.UNREACHABLE, 1, Restart()),
        (Cause.PREEMPTED, 1, Restart()),
        (Cause.PREEMPTED, 100, Restart()),
        (Cause.CONFIGURATION, 1, GiveUp("why")),
    ],
)
def test_what_comes_from_outside_is_tried_again(cause: Cause, attempt: int, decision: object) -> None:
    assert decide(Failure(cause, "why", attempt)) == decision


@pytest.mark.parametrize(
    "cause", [Cause.WORKER_DIED, Cause.NODE_LOST, Cause.DEVICE_MEMORY, Cause.UNREACHABLE, Cause.UNKNOWN]
)
def test_not_for_ever(cause: Cause) -> None:
    decision = decide(Failure(cause, "the detail", MAX_ATTEMPTS))
    assert isinstance(decision, GiveUp)
    assert "the detail" in decision.why
    assert cause.value in decision.why
