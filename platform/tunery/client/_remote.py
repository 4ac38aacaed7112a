"""A client of a cluster: jobs start and end runs there, and a tracking server that both share tells of them.

What is particular to a cluster is its `Jobs`; the rest holds for every one. Two things are known of a run: its jobs
(whether one lives) and its entry on the tracking server (its last state). The jobs are asked first: one that has ended
has brought its last state before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from storage.files import write_whole
from tunery import __version__, mirrored
from tunery.begin import Found
from tunery.client import STOP_GRACE_S, JobHandle, Preview
from tunery.client._changes import refusal
from tunery.client._jobs import Job, Jobs
from tunery.client._tracked import POLL_S, Entry, Tracked, spec_of
from tunery.client._trials import study_with
from tunery.errors import ConflictError, InputError, NotFoundError, RunError
from tunery.parcel import Parcel
from tunery.plan import Plan
from tunery.runs import ENDED, RunFolder, RunState, chosen, first_of, generation, name_of

if TYPE_CHECKING:
    from tunery.profile import Profile

STOP_MARGIN_S = 30.0
"""For a cluster to notice that what it has ended is gone."""


class RemoteClient:
    """See `tunery.client.Client`."""

    def __init__(self, profile: Profile, jobs: Jobs, tracked: Tracked, copies: Path) -> None:
        """`copies`: the folder for what is read of runs."""
        self._profile = profile
        self._copies = copies / profile.name
        self._jobs = jobs
        self._tracked = tracked

    # -- starting ----------------------------------------------------------------------------------------------

    def send(self, plan: Plan, *, offline: bool = False, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        if begin is not None:
            raise self._no_checkpoint(begin.name)
        jobs, entries = self._jobs.all(), self._tracked.entries()
        runs = {job.run for job in jobs} | {entry.run for entry in entries}
        self._refuse_another_content(plan, runs)
        same = sorted((run for run in runs if first_of(run) == first_of(plan.run_id)), key=generation, reverse=True)
        if same and not fresh:
            return self._found(same[0], plan, offline=offline)
        if busy := next((run for run in same if self.state(run).status not in ENDED), None):
            raise ConflictError(
                f"run {busy} of the same spec is under way; nothing was started: "
                f"stop it first (platform stop {busy}), or give the new one another name (--set name=...)"
            )
        first = first_of(plan.run_id)
        run = f"{first}.{generation(same[0]) + 1}" if same else first
        made = self._jobs.submit(run, _parcel(plan, run, offline=offline))
        return JobHandle(run, "started" if made else "attached")

    def _found(self, run: str, plan: Plan, *, offline: bool) -> JobHandle:
        state = self.state(run)
        match state.status:
            case "finished" if not state.unsent:
                return JobHandle(run, "finished")
            case "failed" | "stopped":
                return JobHandle(run, "ended")
            case "interrupted" | "finished":
                return self._again(run, _parcel(plan, run, offline=offline))
            case _:
                return JobHandle(run, "attached")

    def resume(self, run: str, *, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        if begin is not None:
            raise self._no_checkpoint(begin.name)
        if fresh:
            return self.send(self.plan(run), fresh=True)
        state = self.state(run)
        match state.status:
            case "finished" if not state.unsent:
                return JobHandle(run, "finished")
            case "failed" | "stopped" | "interrupted" | "finished":
                return self._again(run, Parcel(run, self._plan(run), __version__, resume=True))
            case _:
                return JobHandle(run, "attached")

    def _again(self, run: str, parcel: Parcel) -> JobHandle:
        """A further job of a run: ids are never used twice, because Ray takes the end of the one for the other's."""
        entry = self._tracked.entry(run)
        # A cluster may forget its jobs; the server knows the last one that has told something.
        taken = {job.id for job in self._jobs.all()} | ({entry.job} if entry is not None else set())
        again = f"{run}-again-"
        counts = [int(job.removeprefix(again)) for job in taken if job.removeprefix(again).isdecimal()]
        counts += [0] if run in taken else []
        job = f"{again}{max(counts) + 1}" if counts else run
        made = self._jobs.submit(job, parcel)
        return JobHandle(run, "resumed" if made else "attached")

    def preview(self, plan: Plan, *, offline: bool = False) -> Preview:
        run = first_of(plan.run_id)
        return self._jobs.preview(run, _parcel(plan, run, offline=offline))

    def _refuse_another_content(self, plan: Plan, runs: set[str]) -> None:
        for run in sorted(runs):
            if name_of(run) == name_of(plan.run_id) and first_of(run) != first_of(plan.run_id):
                state = self.state(run)
                raise ConflictError(refusal(run, state.status, spec_of(self._plan(run)), plan.spec.normal_form()))

    # -- looking -----------------------------------------------------------------------------------------------

    def find(self, text: str) -> str:
        known = {job.run for job in self._jobs.all()} | {entry.run for entry in self._tracked.entries()}
        return chosen(sorted(known), text)

    def runs(self) -> tuple[RunState, ...]:
        jobs = {job.run: job for job in self._jobs.all()}
        entries = {entry.run: entry for entry in self._tracked.entries()}
        began = {run: job.started_at for run, job in jobs.items()}
        began |= {run: entry.started_ms / 1000 for run, entry in entries.items()}
        newest = sorted(began, key=lambda run: -began[run])
        return tuple(self._judged(run, jobs.get(run), entries.get(run)) for run in newest)

    def state(self, run: str) -> RunState:
        job, entry = self._job(run), self._tracked.entry(run)
        if job is None and entry is None:
            raise NotFoundError(f"no run {run!r}")
        return self._judged(run, job, entry)

    def _judged(self, run: str, job: Job | None, entry: Entry | None) -> RunState:
        told = self._tracked.state(entry) if entry is not None and entry.job else None
        if told is None:
            told = RunState(run_id=run, name=name_of(run))
        # The address of the server here, and not the one that the cluster has for it.
        told = told.model_copy(update={"tracking_uri": self._tracked.uri})
        return judged(told, job, told_by=entry.job if entry is not None else "")

    def watch(self, run: str) -> Iterator[RunState]:
        state = self.state(run)
        while state.status not in ENDED:
            yield state
            time.sleep(POLL_S)
            state = self.state(run)
        yield state

    def plan(self, run: str) -> Plan:
        try:
            return Plan.model_validate_json(self._plan(run))
        except ValidationError as error:
            raise ConflictError(f"the plan of run {run} was written by another version of tunery: {error}") from error

    def _plan(self, run: str) -> bytes:
        entry = self._tracked.entry(run)
        if entry is not None and entry.job:
            return self._tracked.read(entry, mirrored.PLAN)
        job = self._job(run)
        if job is None:
            raise NotFoundError(f"no run {run!r}")
        return self._jobs.parcel(job).plan

    def folder(self, run: str) -> RunFolder:
        entry = self._tracked.entry(run)
        if entry is None or not entry.job:
            raise NotFoundError(f"nothing of run {run} has come to MLflow at {self._tracked.uri} yet")
        folder = RunFolder(self._copies / run)
        lines = self._tracked.lines(entry, mirrored.RECORD, lambda: False)
        write_whole(folder.root / mirrored.RECORD, "".join(f"{line}\n" for line in lines).encode())
        return folder

    def checkpoint(self, text: str, *, of: str = "") -> Found:
        raise self._no_checkpoint(f"{of}/{text}" if of and "/" not in text else text)

    def _no_checkpoint(self, name: str) -> InputError:
        return InputError(
            f"checkpoint {name} cannot be named here: with target {self._profile.target!r} checkpoints stay on the "
            "cluster; give the command there, with a profile whose target is 'local'"
        )

    # -- stopping and logs -------------------------------------------------------------------------------------

    def stop(self, run: str, *, grace_s: float = STOP_GRACE_S) -> RunState:
        state, job = self.state(run), self._job(run)
        deadline = time.monotonic() + grace_s + STOP_MARGIN_S
        while state.status not in ENDED:
            if job is not None and job.alive:
                self._jobs.stop(job)  # again each time: one that waits may not have heard it
            if time.monotonic() > deadline:
                raise RunError(
                    f"run {run} was asked to stop and has not ended within {grace_s:.0f} s; "
                    f"the cluster ends its processes {STOP_GRACE_S:.0f} s after the request"
                )
            time.sleep(POLL_S)
            job = self._job(run)
            if job is None and self._tracked.entry(run) is None:  # it had not begun, and has gone without a trace
                return state.model_copy(update={"status": "stopped"})
            state = self.state(run)
        return state

    def log(
        self, run: str, *, study: str | None = None, trial: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        name = mirrored.DRIVER_LOG
        if trial is not None:
            name = mirrored.trial_log(study_with(self.state(run), study, trial), trial)
            entry = self._tracked.entry(run)
            if not follow and (entry is None or not self._tracked.has(entry, name)):
                raise NotFoundError(f"nothing is logged of trial {trial} of run {run} yet")
        return self._lines(run, name, follow=follow)

    def _lines(self, run: str, name: str, *, follow: bool) -> Iterator[str]:
        def goes_on() -> bool:
            return follow and self.state(run).status not in ENDED

        while (entry := self._tracked.entry(run)) is None and goes_on():
            time.sleep(POLL_S)
        if entry is not None:
            yield from self._tracked.lines(entry, name, goes_on)
        job = self._job(run)
        if name == mirrored.DRIVER_LOG and job is not None and (entry is None or entry.job != job.id):
            # It has not come as far as a driver; what it has printed says why.
            yield from self._jobs.output(job).splitlines()

    def _job(self, run: str) -> Job | None:
        """The newest of a run."""
        return next((job for job in reversed(self._jobs.all()) if job.run == run), None)


def _parcel(plan: Plan, run: str, *, offline: bool) -> Parcel:
    content = plan.model_copy(update={"run_id": run}).model_dump_json().encode()
    return Parcel(run, content, __version__, offline=offline)


def judged(told: RunState, job: Job | None, *, told_by: str) -> RunState:
    """The state of a run, from the last that was told of it, by the job `told_by`, and from its newest job, if any."""
    if job is not None and told_by != job.id:
        # The newest job has told nothing yet: what there is, is of the one before.
        if job.alive:
            phase = "waiting for the cluster" if job.waiting else "beginning on the cluster"
            return told.model_copy(update={"status": "starting", "phase": phase, "error": "", "ended_at": None})
        return told.model_copy(update={"status": "stopped" if job.stopped else "failed", "error": job.why})
    if told.status in ENDED or (job is not None and job.alive):
        return told
    if job is not None and job.succeeded:
        late = f"it has finished, and its last state has not come to MLflow at {told.tracking_uri}"
        return told.model_copy(update={"status": "finished", "error": late})
    return told.model_copy(update={"status": "stopped" if job is not None and job.stopped else "interrupted"})
