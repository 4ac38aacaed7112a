"""What works on a cluster's jobs: a thread that begins each, tells the tracking server of its run, and ends it.

A run goes on until it is asked to stop, or until the test says how it ends: as `tunery.cluster.job` with a driver does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.stand_ins.kubernetes import ApiServer
from tests.stand_ins.ray_jobs import JobsApi
from tests.stand_ins.tracking import Tracking
from tests.unit.client.fake_driver import AT_WORK, state_of
from tunery import mirrored
from tunery.parcel import Parcel
from tunery.report.result import exit_code
from tunery.runs import RunStatus


@dataclass(frozen=True)
class Begun:
    """A job that works."""

    id: str
    parcel: Parcel


class Cluster(Protocol):
    """What the jobs are begun and ended by."""

    def begin(self) -> Sequence[Begun]:
        """Those that waited, and work from now on."""

    def asked_to_stop(self, job: Begun) -> bool: ...

    def end(self, job: Begun, code: int) -> None:
        """Its process has ended with this code."""


@dataclass(frozen=True)
class Operator:
    """KubeRay's operator."""

    server: ApiServer
    tracking: Tracking

    def begin(self) -> Sequence[Begun]:
        begun = []
        for name, found in [*self.server.jobs().items()]:
            if "deletionTimestamp" in found["metadata"]:
                self.server.release(name)
            elif not found.get("status"):
                self.server.operate(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
                begun.append(Begun(found["spec"]["jobId"], Parcel.of(found["spec"]["metadata"])))
        return begun

    def asked_to_stop(self, job: Begun) -> bool:
        return self.tracking.entries[job.parcel.run].tags.get(mirrored.STOP) == job.id

    def end(self, job: Begun, code: int) -> None:
        (name,) = [name for name, found in self.server.jobs().items() if found["spec"]["jobId"] == job.id]
        if code == 0:
            self.server.operate(name, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
        else:
            message = f"Job entrypoint command failed with exit code {code}, last available logs:\n{AT_WORK}\n"
            failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
            self.server.operate(name, **failed, message=message)


@dataclass(frozen=True)
class Supervisors:
    """Ray's own, one a job."""

    api: JobsApi

    def begin(self) -> Sequence[Begun]:
        waiting = [job for job, found in [*self.api.jobs.items()] if found["status"] == "PENDING"]
        for job in waiting:
            self.api.operate(job, "RUNNING", log=f"{AT_WORK}\n")
        return [Begun(job, Parcel.of(self.api.jobs[job]["metadata"])) for job in waiting]

    def asked_to_stop(self, job: Begun) -> bool:
        return job.id in self.api.stopping

    def end(self, job: Begun, code: int) -> None:
        if self.asked_to_stop(job):
            self.api.operate(job.id, "STOPPED")
        else:
            self.api.operate(job.id, "FAILED" if code else "SUCCEEDED", code=code)


@dataclass
class Work:
    """The runs of one cluster."""

    cluster: Cluster
    tracking: Tracking
    ends: dict[str, RunStatus] = field(default_factory=dict)
    """Run -> how it ends, as soon as it works."""
    working: list[Begun] = field(default_factory=list)

    def turn(self) -> None:
        for job in self.cluster.begin():
            self._tell(job, "running")
            self.working.append(job)
        for job in [*self.working]:
            status = "stopped" if self.cluster.asked_to_stop(job) else self.ends.get(job.parcel.run)
            if status is not None:
                # What is told is there before the job's process ends.
                self._tell(job, status)
                self.cluster.end(job, exit_code(status))
                self.working.remove(job)

    def _tell(self, job: Begun, status: RunStatus) -> None:
        state = state_of(job.parcel.run, status).model_dump(mode="json", exclude={"run_id", "name"})
        self.tracking.tell(job.parcel.run, job.id, plan=job.parcel.plan, log=f"{AT_WORK}\n", **state)


@contextmanager
def at_work(cluster: Cluster, tracking: Tracking) -> Iterator[Work]:
    """Beside the test, for as long as the context lasts; what goes wrong there is raised here."""
    work, over = Work(cluster, tracking), threading.Event()
    problems: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(0.005):
                work.turn()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield work
    finally:
        over.set()
        thread.join()
    if problems:
        raise problems[0]
