"""Runs on Kubernetes: each is a RayJob, sent through the API server, with a Ray cluster of its own.

What is sent is the RayJob of deploy/k8s with the profile's values (`tunery.k8s.render`) and, as data in its `metadata`,
the plan. KubeRay's operator makes the cluster and hands the job to it; Kueue may let it wait before. Over the tracking
server, which both share, the run is followed, and asked to stop: nothing else of it is reached from outside.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunery.client import STOP_GRACE_S, Preview, _rayjob
from tunery.client._jobs import Job
from tunery.client._remote import RemoteClient
from tunery.client._tracked import Tracked
from tunery.errors import ConflictError, InputError, ProfileError, UnreachableError
from tunery.k8s import access
from tunery.parcel import Parcel

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.client._jobs import Jobs
    from tunery.home import Home
    from tunery.k8s.api import ApiServer, Object, RefusedError
    from tunery.k8s.collection import Collection
    from tunery.profile import Profile

GONE_S = 60.0
"""How long a job that is being deleted is waited for, where another is to take its name."""
_TRIES = 5
"""Of a change that another has come before."""


def connect(profile: Profile, home: Home) -> Client:
    """The client that sends plans to the profile's cluster. ProfileError where a secret cannot be read."""
    tracked = Tracked.of(profile, profile.environment())
    return RemoteClient(profile, RayJobs(profile, tracked), tracked, home.cache / "runs")


class RayJobs:
    """See `tunery.client._jobs.Jobs`."""

    def __init__(self, profile: Profile, tracked: Tracked) -> None:
        """Connects to nothing before it is asked something."""
        self._profile = profile
        self._settings = profile.kubernetes
        self._tracked = tracked
        self._connected: tuple[ApiServer, Collection] | None = None
        self._asked: dict[str, float] = {}
        """Job -> when it was first asked to stop, by `time.monotonic`."""

    def all(self) -> Sequence[Job]:
        jobs = [job for found in self._collection.all() if (job := _rayjob.read(found)) is not None]
        return sorted(jobs, key=lambda job: (job.started_at, job.id))

    def parcel(self, job: Job) -> Parcel:
        return Parcel.of(_rayjob.metadata_of(self._get(job)))

    def preview(self, job: str, parcel: Parcel) -> Preview:
        to = f"POST {self._path()} ({access.where(self._settings)})"
        return Preview("kubernetes", to, _rayjob.made(self._settings, job, parcel), manifest=True)

    def submit(self, job: str, parcel: Parcel) -> bool:
        from tunery.k8s.api import RefusedError

        made = _rayjob.made(self._settings, job, parcel)
        for other in self.all():
            # Its run has ended, and KubeRay may be about to try it again: beside this one it must not.
            if other.run == parcel.run and other.alive and other.id != job:
                self._delete(other)
        for _ in range(_TRIES):
            try:
                # Strict: a field that this KubeRay does not know would be dropped without a word.
                sent = self._server.ask("POST", self._path(), query={"fieldValidation": "Strict"}, body=made)
            except RefusedError as refused:
                if refused.reason != "AlreadyExists":
                    raise self._not_taken(refused) from refused
                there = self._server.find(self._path(made["metadata"]["name"]))
                if there is not None and self._is(there, job, parcel):
                    return False
            else:
                self._collection.put(sent)
                return True
        raise UnreachableError(f"job {job} is there and gone again whenever it is looked at; try again")

    def stop(self, job: Job) -> None:
        first = self._asked.setdefault(job.id, time.monotonic())
        if job.waiting or time.monotonic() - first > STOP_GRACE_S:
            self._delete(job)
            return
        # A job that ends because it was asked to is none that has failed, and is not to be tried again.
        self._patch(job, {"metadata": {"annotations": {_rayjob.STOP: "true"}}, "spec": {"backoffLimit": 0}})
        entry = self._tracked.entry(job.run)
        if entry is not None and entry.job == job.id:
            self._tracked.ask_to_stop(entry)

    def output(self, job: Job) -> str:
        return _rayjob.told(self._get(job))

    # -- the API server ----------------------------------------------------------------------------------------

    @property
    def _server(self) -> ApiServer:
        return self._connect()[0]

    @property
    def _collection(self) -> Collection:
        return self._connect()[1]

    def _connect(self) -> tuple[ApiServer, Collection]:
        if self._connected is None:
            server = access.connect(self._settings, profile=self._profile.name)
            from tunery.k8s.collection import RAY_JOBS, Collection

            collection = Collection(server, RAY_JOBS, self._settings.namespace, label=_rayjob.MANAGED_BY)
            self._connected = server, collection
        return self._connected

    def _path(self, name: str = "") -> str:
        return f"/apis/ray.io/v1/namespaces/{self._settings.namespace}/rayjobs" + (f"/{name}" if name else "")

    def _get(self, job: Job) -> Object:
        found = self._server.find(self._path(_rayjob.name_of(job.id)))
        if found is None:
            raise UnreachableError(f"the API server at {self._server.url} has lost job {job.id}")
        return found

    def _is(self, there: Object, job: str, parcel: Parcel) -> bool:
        """Whether what has the name is the job; one that is being deleted is waited for. ConflictError if another."""
        name = there["metadata"]["name"]
        found = _rayjob.read(there)
        if found is None or (found.id, found.run) != (job, parcel.run):
            raise ConflictError(
                f"there is a RayJob {name} in namespace {self._settings.namespace} which is not job {job}: "
                "delete it, or give the sweep another name (--set name=...)"
            )
        self._collection.put(there)
        if "deletionTimestamp" not in there["metadata"]:
            return True
        if not self._collection.until(lambda: not self._collection.has(name), timeout_s=GONE_S):
            raise ConflictError(
                f"RayJob {name} is being deleted, and has not gone within {GONE_S:.0f} s: does KubeRay's operator run?"
            )
        return False

    def _patch(self, job: Job, change: Object) -> None:
        from tunery.k8s.api import MERGE, RefusedError

        path = self._path(_rayjob.name_of(job.id))
        for attempt in range(_TRIES):
            try:
                self._collection.put(self._server.ask("PATCH", path, body=change, content_type=MERGE))
                return
            except RefusedError as refused:
                if refused.status == http.client.NOT_FOUND:
                    return  # it has gone meanwhile
                if refused.status != http.client.CONFLICT or attempt == _TRIES - 1:
                    raise self._server.unexpected(refused, f"change job {job.id}") from refused

    def _delete(self, job: Job) -> None:
        from tunery.k8s.api import RefusedError

        try:
            # What the job has made goes with it.
            body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
            self._server.ask("DELETE", self._path(_rayjob.name_of(job.id)), body=body)
        except RefusedError as refused:
            if refused.status != http.client.NOT_FOUND:
                raise self._server.unexpected(refused, f"delete job {job.id}") from refused

    def _not_taken(self, refused: RefusedError) -> Exception:
        profile, namespace = self._profile.name, self._settings.namespace
        if refused.status == http.client.UNPROCESSABLE_ENTITY:
            return InputError(
                f"the API server does not take the RayJob: {refused}; it is made by the overlay of profile {profile!r}"
            )
        if refused.status == http.client.NOT_FOUND and refused.said.get("details", {}).get("kind") == "namespaces":
            return ProfileError(
                f"namespace {namespace!r} is not there: `platform k8s apply --profile {profile}` makes it, or name "
                f"another under [profiles.{profile}.kubernetes]"
            )
        return self._server.unexpected(refused, "start a RayJob")


if TYPE_CHECKING:
    _: type[Jobs] = RayJobs
