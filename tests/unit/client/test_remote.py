"""What is said of a run on a cluster, from what was told of it and from its newest job."""

from __future__ import annotations

import pytest

from tunery.client._jobs import Job, why_of
from tunery.client._remote import judged
from tunery.runs import RunState

RUN = "glue-01234567"
WAITS = Job(RUN, RUN, alive=True, waiting=True)
WORKS = Job(RUN, RUN, alive=True)
STOPPED = Job(RUN, RUN, alive=False, stopped=True)
FAILED = Job(RUN, RUN, alive=False, why="no disk")
SUCCEEDED = Job(RUN, RUN, alive=False, succeeded=True)


@pytest.mark.parametrize(
    ("told", "told_by", "job", "status", "error"),
    [
        # Its newest job has told of it.
        ("running", RUN, WORKS, "running", ""),
        ("finished", RUN, WORKS, "finished", ""),
        ("finished", RUN, SUCCEEDED, "finished", ""),
        ("stopped", RUN, STOPPED, "stopped", ""),
        ("interrupted", RUN, FAILED, "interrupted", ""),
        # It has died, or was ended, before it could tell the end.
        ("running", RUN, FAILED, "interrupted", ""),
        ("running", RUN, STOPPED, "stopped", ""),
        (
            "running",
            RUN,
            SUCCEEDED,
            "finished",
            "it has finished, and its last state has not come to MLflow at http://m",
        ),
        # The cluster knows no job of it any more.
        ("running", RUN, None, "interrupted", ""),
        ("finished", RUN, None, "finished", ""),
        # It has told nothing yet: what was told is nothing, or of the job before.
        ("starting", "", WAITS, "starting", ""),
        ("starting", "", WORKS, "starting", ""),
        ("failed", "another", WORKS, "starting", ""),
        ("starting", "", FAILED, "failed", "no disk"),
        ("stopped", "another", FAILED, "failed", "no disk"),
        ("running", "another", STOPPED, "stopped", ""),
    ],
)
def test_how_a_run_stands(told: str, told_by: str, job: Job | None, status: str, error: str) -> None:
    state = RunState.model_validate({"run_id": RUN, "name": "glue", "status": told, "tracking_uri": "http://m"})
    found = judged(state, job, told_by=told_by)
    assert (found.status, found.error) == (status, error)


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        ("Job failed, last logs:\nx\nerror: no such thing\n", 4, "no such thing"),
        ("Job failed, last logs:\nTypeError: x\n\n", 1, "the job has ended with exit code 1: TypeError: x"),
        ("runtime_env setup failed: x", None, "the job has failed: runtime_env setup failed: x"),
        ("", None, "the job has failed"),
    ],
)
def test_why_a_job_has_failed(message: str, code: int | None, why: str) -> None:
    assert why_of(message, code) == why
