"""Objects to the API server, by server-side apply: what others have set is left to them, and told where it clashes."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tunery.errors import ConflictError, InputError, ProfileError, TuneryError
from tunery.k8s.api import APPLY, ApiServer, Object, RefusedError

MANAGER = "tunery"
"""Under this name the API server notes whose a field is."""

Outcome = Literal["created", "changed", "unchanged"]


@dataclass(frozen=True)
class Applied:
    """One object that was taken."""

    name: str
    """`Kind/name`."""
    outcome: Outcome


def apply(
    server: ApiServer, objects: Iterable[Object], *, force: bool = False, dry_run: bool = False
) -> Iterator[Applied]:
    """Apply them one by one; applying again does no harm.

    What is refused does not keep the others from being applied, and is told at the end: ConflictError where only others
    are in the way, which `force` passes over, else InputError. `dry_run`: the server checks, and keeps nothing.
    """
    kinds = Kinds(server)
    conflicts: list[str] = []
    others: list[str] = []
    for each in objects:
        try:
            yield Applied(name(each), _apply(server, kinds, each, force=force, dry_run=dry_run))
        except RefusedError as refused:
            clashes = refused.reason == "Conflict"
            (conflicts if clashes else others).append(f"{name(each)}: {_told(each, refused)}")
        except (_UnknownError, InputError) as error:
            others.append(f"{name(each)}: {error}")
    if others:
        raise InputError("not applied:\n" + "\n".join([*others, *conflicts]))
    if conflicts:
        raise ConflictError(
            "not applied, because others have set it otherwise:\n"
            + "\n".join(conflicts)
            + "\nput the value into your overlay, have the other let go of it, or take it over with --force"
        )


class _UnknownError(TuneryError):
    """A kind that the API server does not have."""


class Kinds:
    """Where the API server has the objects of each kind, asked once a group."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._known: dict[str, dict[str, tuple[str, bool]]] = {}

    def path(self, thing: Object) -> str:
        """Of an object. `_UnknownError` where the server has no such kind."""
        version = thing["apiVersion"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if base not in self._known:
            found = self._server.find(base) or {}
            listed = [each for each in found.get("resources", []) if "/" not in each["name"]]
            self._known[base] = {each["kind"]: (each["name"], each["namespaced"]) for each in listed}
        if thing["kind"] not in self._known[base]:
            group = version.partition("/")[0]
            raise _UnknownError(f"the API server has no such kind of {version}: {_COMES_WITH.get(group, 'install it')}")
        plural, namespaced = self._known[base][thing["kind"]]
        metadata = thing["metadata"]
        within = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{base}{within}/{plural}/{metadata['name']}"


_COMES_WITH = {
    "ray.io": "install KubeRay's operator, 1.7 or later",
    "kueue.x-k8s.io": "install Kueue, or take another overlay",
    "monitoring.coreos.com": "install the Prometheus operator, or leave the component monitoring out",
}


def name(thing: Object) -> str:
    """`Kind/name`."""
    return f"{thing['kind']}/{thing['metadata']['name']}"


def _apply(server: ApiServer, kinds: Kinds, thing: Object, *, force: bool, dry_run: bool) -> Outcome:
    path = kinds.path(thing)
    before = server.find(path)
    query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
    query |= ({"force": "true"} if force else {}) | ({"dryRun": "All"} if dry_run else {})
    after = server.ask("PATCH", path, query=query, body=thing, content_type=APPLY)
    if before is None:
        return "created"
    # Of a dry run the version says nothing.
    return "unchanged" if _content(before) == _content(after) else "changed"


def _content(thing: Object) -> Object:
    """Without what the server notes of itself."""
    noted = ("managedFields", "resourceVersion", "generation")
    metadata = {key: value for key, value in thing["metadata"].items() if key not in noted}
    return {**thing, "metadata": metadata, "status": None}


def _told(thing: Object, refused: RefusedError) -> str:
    causes = refused.said.get("details", {}).get("causes", [])
    if refused.reason == "Conflict" and causes:
        return ", ".join(f"{cause.get('field', '?')} ({cause.get('message', 'conflict')})" for cause in causes)
    metadata = thing["metadata"]
    if refused.status == http.client.UNPROCESSABLE_ENTITY and thing["kind"] == "Job":
        return (
            f"a Job is made anew and not changed: kubectl -n {metadata['namespace']} delete job {metadata['name']}, "
            f"and apply again ({refused})"
        )
    if refused.status == http.client.NOT_FOUND:
        return f"its namespace is not there ({refused})"
    return str(refused)


def deployed(objects: Iterable[Object]) -> list[Object]:
    """What is applied: all but the form of a sweep's job, which `platform submit` sends. ProfileError: nothing is."""
    found = [each for each in objects if each["kind"] != "RayJob"]
    if not found:
        raise ProfileError("the overlay makes no objects")
    return found
