"""Runs on a Ray cluster that is there already, through its Jobs API: plain HTTP, with a token.

The job runs `tunery.cluster.job` of the cluster's own tunery. Which servers and secrets it has is said by the cluster's
own profile, and where its runs lie by its TUNERY_HOME.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tunery.client import Preview
from tunery.client._http import Server
from tunery.client._jobs import ENTRYPOINT, ENVIRONMENT, Job, why_of
from tunery.client._remote import RemoteClient
from tunery.client._tracked import Tracked
from tunery.client._trust import Trust
from tunery.errors import ProfileError, UnreachableError
from tunery.home import Home
from tunery.parcel import Parcel, run_of
from tunery.profile import TOKEN

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.client._jobs import Jobs
    from tunery.profile import Profile

_JOBS = "/api/jobs/"


def connect(profile: Profile, home: Home) -> Client:
    """The client that sends plans to the profile's cluster. ProfileError where the profile does not say where it is."""
    if profile.jobs is None:
        raise ProfileError(f"profile {profile.name!r} has target 'ray' and no `jobs`, the address of the Jobs API")
    secrets = profile.environment()
    jobs = RayJobs(profile, profile.jobs, secrets)
    return RemoteClient(profile, jobs, Tracked.of(profile, secrets), home.cache / "runs")


class RayJobs:
    """See `tunery.client._jobs.Jobs`."""

    def __init__(self, profile: Profile, url: str, secrets: Mapping[str, str]) -> None:
        token = secrets.get(TOKEN) or os.environ.get(TOKEN, "")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._profile = profile
        rights = _rights(profile, there=bool(token))
        self._server = Server("the Jobs API", url, rights=rights, trust=Trust.of(profile), headers=self._headers)

    def all(self) -> Sequence[Job]:
        found = self._list()
        jobs = [_job(each, run) for each in found if (run := run_of(each.get("metadata"))) is not None]
        return sorted(jobs, key=lambda job: job.started_at)

    def parcel(self, job: Job) -> Parcel:
        found = self._get(job.id)
        if found is None:
            raise UnreachableError(f"the Jobs API at {self._server.url} has lost job {job.id}")
        return Parcel.of(found.get("metadata") or {})

    def preview(self, job: str, parcel: Parcel) -> Preview:
        return Preview(
            target="ray",
            to=f"POST {self._server.url}{_JOBS}",
            # What is secret is named and not shown.
            headers=dict.fromkeys(self._headers, f"Bearer <{TOKEN}>"),
            content={
                "entrypoint": ENTRYPOINT,
                "submission_id": job,
                "runtime_env": {"env_vars": dict(ENVIRONMENT)},
                "metadata": parcel.metadata(),
            },
        )

    def submit(self, job: str, parcel: Parcel) -> bool:
        if self._get(job) is not None:
            return False
        answer = self._server.ask("POST", _JOBS, json=self.preview(job, parcel).content)
        if answer.status_code == HTTPStatus.OK:
            return True
        # Another submit was quicker, which Ray tells by the status of a fault.
        if self._get(job) is not None:
            return False
        raise self._server.fail(answer, f"start job {job}")

    def stop(self, job: Job) -> None:
        answer = self._server.ask("POST", f"{_JOBS}{quote(job.id)}/stop")
        if answer.status_code not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise self._server.fail(answer, f"stop job {job.id}")

    def output(self, job: Job) -> str:
        found = self._server.ask_json("GET", f"{_JOBS}{quote(job.id)}/logs", f"give the log of job {job.id}")
        return str((found or {}).get("logs") or "")

    def _get(self, job: str) -> dict[str, Any] | None:
        return self._server.ask_json("GET", f"{_JOBS}{quote(job)}", f"look up job {job}")

    def _list(self) -> list[dict[str, Any]]:
        answer = self._server.ask("GET", _JOBS)
        try:
            found = answer.json() if answer.status_code == HTTPStatus.OK else None
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise self._server.fail(answer, "list jobs (is this the address of Ray's dashboard?)")
        return found


def _job(found: Mapping[str, Any], run: str) -> Job:
    status = found["status"]
    return Job(
        id=found["submission_id"],
        run=run,
        alive=status in ("PENDING", "RUNNING"),
        waiting=status == "PENDING",
        stopped=status == "STOPPED",
        succeeded=status == "SUCCEEDED",
        why=why_of(found.get("message") or "", found.get("driver_exit_code")) if status == "FAILED" else "",
        started_at=(found.get("start_time") or 0) / 1000,
    )


def _rights(profile: Profile, *, there: bool) -> str:
    secret = profile.secrets.get(TOKEN)
    if secret is not None:
        place = f"the environment variable {secret.env}" if secret.env else f"the file {secret.file}"
        return f"profile {profile.name!r} takes the secret {TOKEN} from {place}, and that is not the cluster's token"
    if there:
        return (
            f"the environment variable {TOKEN} does not hold the cluster's token, "
            f"and profile {profile.name!r} names no secret {TOKEN}"
        )
    return f"profile {profile.name!r} lacks the secret {TOKEN}: name it under [profiles.{profile.name}.secrets]"


if TYPE_CHECKING:
    _: type[Jobs] = RayJobs
