"""A run's job as a RayJob: how one is made, and what is read of its status."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Any

import yaml

from tunery.client._jobs import ENTRYPOINT, ENVIRONMENT, Job, why_of
from tunery.errors import ConflictError
from tunery.k8s import render
from tunery.kube import Image, Kubernetes
from tunery.parcel import Parcel, run_of

Object = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by=tunery"
"""The label by which jobs of ours are known."""
STOP = "tunery/stop"
"""Annotation of a job that was asked to end."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""KubeRay makes other names of a job's, and they may have no more than 63 letters."""
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+\S*)")
_ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
_REASONS = {
    "DeadlineExceeded": "it has taken longer than its activeDeadlineSeconds; `platform resume` lets it go on",
    "SubmissionFailed": "KubeRay's operator could not hand the job to its cluster",
    "ValidationFailed": "KubeRay's operator refuses it",
}


def made(settings: Kubernetes, job: str, parcel: Parcel) -> Object:
    """What is sent. ConflictError where an image is said to be of another version."""
    _check_images(settings, parcel.version)
    found = render.job(settings)
    metadata, spec = found["metadata"], found["spec"]
    label, _, value = MANAGED_BY.partition("=")
    metadata["name"] = name_of(job)
    metadata["labels"] = {**metadata.get("labels", {}), label: value, "app.kubernetes.io/version": parcel.version}
    spec["entrypoint"] = ENTRYPOINT
    spec["jobId"] = job
    spec["metadata"] = parcel.metadata()
    if parcel.resume:
        # It trains what had failed anew: once, as somebody has asked for, and not at every attempt of KubeRay's.
        spec["backoffLimit"] = 0
    spec["runtimeEnvYAML"] = yaml.safe_dump({"env_vars": dict(ENVIRONMENT)})
    return found


def name_of(job: str) -> str:
    """A job's id as the name of an object: itself, or where it is none a shorter one that is always the same."""
    if _NAME.fullmatch(job):
        return job
    plain = re.sub(r"[^a-z0-9]+", "-", job)[:34].strip("-")
    return f"run-{plain}-{hashlib.sha256(job.encode()).hexdigest()[:8]}"


def metadata_of(found: Object) -> dict[str, str]:
    """What travels with the job."""
    return dict(found.get("spec", {}).get("metadata") or {})


def read(found: Object) -> Job | None:
    """None: it is none of tunery's runs."""
    run = run_of(metadata_of(found))
    if run is None:
        return None
    status = found.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
    going = "deletionTimestamp" in found["metadata"]
    alive = deployment not in _ENDED and not going
    asked = going or STOP in (found["metadata"].get("annotations") or {})
    failed = not alive and (job == "FAILED" or deployment in ("Failed", "ValidationFailed"))
    return Job(
        id=found["spec"]["jobId"],
        run=run,
        alive=alive,
        waiting=alive and job in ("", "PENDING"),
        stopped=not alive and (asked or job == "STOPPED"),
        succeeded=job == "SUCCEEDED",
        why=_why(status) if failed else "",
        started_at=datetime.fromisoformat(found["metadata"]["creationTimestamp"]).timestamp(),
    )


def _why(status: Object) -> str:
    message, reason = status.get("message") or "", status.get("reason") or ""
    if reason in _REASONS:
        return f"{_REASONS[reason]}: {message}" if message else _REASONS[reason]
    return why_of(message)


def told(found: Object) -> str:
    """What the operator says of a job."""
    status = found.get("status") or {}
    stands = status.get("jobDeploymentStatus") or "not seen by KubeRay's operator yet"
    line = f"RayJob {found['metadata']['name']}: {stands}"
    line += f" ({status['reason']})" if status.get("reason") else ""
    return "\n".join(filter(None, [line, status.get("message") or ""]))


def _check_images(settings: Kubernetes, sent: str) -> None:
    """A tag that names another version is told at once; of a digest the job itself finds out."""
    for text in (settings.image, settings.gpu_image):
        found = _VERSION.fullmatch(Image.of(text).tag or "")
        if found is not None and found[1] != sent:
            raise ConflictError(
                f"the plan was compiled by tunery {sent}, and the image {text} has tunery {found[1]}: "
                f"install {found[1]} where the command is given, or name an image with {sent} in the profile"
            )
