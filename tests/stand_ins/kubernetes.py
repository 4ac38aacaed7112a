"""An API server of Kubernetes in memory: objects, resource versions, watches, conflicts, and schemas that are held to.

What the requests of this project go through, over real sockets, and no more: no controllers (a test moves a job's
status as the operator would), and access is one token that may do what one Role lists, or everything but what is
forbidden by name.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""The path of a kind's objects without a namespace, the namespace, the name."""

CORE = {
    "/api/v1": {
        "Namespace": ("namespaces", False), "Node": ("nodes", False), "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True), "Service": ("services", True), "ServiceAccount": ("serviceaccounts", True),
        "ResourceQuota": ("resourcequotas", True), "LimitRange": ("limitranges", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "/apis/apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "/apis/batch/v1": {"Job": ("jobs", True)},
    "/apis/networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "/apis/policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "/apis/rbac.authorization.k8s.io/v1": {"Role": ("roles", True), "RoleBinding": ("rolebindings", True)},
    "/apis/scheduling.k8s.io/v1": {"PriorityClass": ("priorityclasses", False)},
    "/apis/storage.k8s.io/v1": {"StorageClass": ("storageclasses", False)},
    "/apis/apiextensions.k8s.io/v1": {"CustomResourceDefinition": ("customresourcedefinitions", False)},
}  # fmt: skip
RAY = {"/apis/ray.io/v1": {"RayCluster": ("rayclusters", True), "RayJob": ("rayjobs", True)}}
KUEUE = {
    "/apis/kueue.x-k8s.io/v1beta2": {
        "ResourceFlavor": ("resourceflavors", False), "ClusterQueue": ("clusterqueues", False),
        "LocalQueue": ("localqueues", True),
    },
}  # fmt: skip


class FailureError(Exception):
    """An answer that is none of success."""

    def __init__(self, code: int, reason: str, message: str, **details: object) -> None:
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message, "details": details,
        }  # fmt: skip
        super().__init__(message)


@dataclass
class Fault:
    """What happens to a request instead of its answer, once."""

    status: int = 0
    """0: the connection is lost without a word."""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    """The connection is lost when all is done, and the answer with it."""
    method: str = ""
    """Which requests it waits for; empty: any."""
    watch: bool = False
    """It waits for a watch, and breaks it in the middle of a line after its first event."""


@dataclass
class ApiServer:
    """What is there, and what was asked."""

    token: str = "the-right-token"
    kinds: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=lambda: {**CORE, **RAY})
    """Path of a group and version -> kind -> its plural, and whether it is of a namespace."""
    mistakes: Callable[[Object], list[str]] = lambda _: []
    """Where an object departs from its schema."""
    faults: list[Fault] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    """`verb plural`, such as `create rayjobs`."""
    role: Object | None = None
    """A Role, which alone says what is allowed; None: everything is that is not forbidden."""
    away: bool = False
    """It answers as a proxy does before a server that is not there."""
    objects: dict[Key, Object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """`METHOD path?query` of every request; of a watch `WATCH since`."""
    url: str = ""
    version: int = 100
    forgotten: int = 0
    """Resource versions up to this one can be watched from no longer."""
    events: list[tuple[int, str, Key, Object]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    # -- what tests do -----------------------------------------------------------------------------------------

    def add(self, kind: str, name: str, *, namespace: str = "", **content: Any) -> Object:
        """An object that was there before."""
        base, plural, namespaced = self._kind(kind)
        version = base.removeprefix("/apis/").removeprefix("/api/")
        made = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}
        return self._store((f"{base}/{plural}", namespace if namespaced else "", name), made, "ADDED")

    def jobs(self) -> dict[str, Object]:
        """The RayJobs, by their names."""
        with self.changed:
            return {key[2]: found for key, found in self.objects.items() if key[0] == "/apis/ray.io/v1/rayjobs"}

    def operate(self, name: str, **status: Any) -> None:
        """As the operator does: the status of a RayJob."""
        with self.changed:
            ((key, found),) = [each for each in self.objects.items() if each[0][2] == name and "rayjobs" in each[0][0]]
            self._store(key, {**found, "status": {**found.get("status", {}), **status}}, "MODIFIED")

    def release(self, name: str) -> None:
        """As the operator does with a job that is being deleted: its finalizer goes, and the job with it."""
        with self.changed:
            (key,) = [key for key in self.objects if key[2] == name and "rayjobs" in key[0]]
            self._remove(key)

    def forget(self) -> None:
        """Compact: watches from before now are told that it is too long ago."""
        with self.changed:
            self.forgotten = self.version
            self.events.clear()

    def allows(self, verb: str, group: str, plural: str, namespace: str) -> bool:
        """Whether the token may."""
        if f"{verb} {plural}" in self.forbidden:
            return False
        if self.role is None:
            return True
        return namespace == self.role["metadata"]["namespace"] and any(
            group in rule["apiGroups"] and plural in rule["resources"] and verb in rule["verbs"]
            for rule in self.role["rules"]
        )

    # -- what requests do --------------------------------------------------------------------------------------

    def _kind(self, kind: str) -> tuple[str, str, bool]:
        for base, kinds in self.kinds.items():
            if kind in kinds:
                return base, *kinds[kind]
        raise KeyError(kind)

    def _store(self, key: Key, content: Object, event: str) -> Object:
        with self.changed:
            self.version += 1
            found = copy.deepcopy(content)
            found["metadata"] = {
                "uid": str(uuid.uuid4()),
                "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                **({"namespace": key[1]} if key[1] else {}),
                **found["metadata"],
                "resourceVersion": str(self.version),
            }
            self.objects[key] = found
            self.events.append((self.version, event, key, found))
            self.changed.notify_all()
            return found

    def _remove(self, key: Key) -> Object:
        with self.changed:
            found = self._store(key, self.objects[key], "DELETED")
            del self.objects[key]
            return found

    def create(self, key: Key, content: Object) -> Object:
        with self.changed:
            self._check(key, content)
            if key in self.objects:
                plural = key[0].rpartition("/")[2]
                raise FailureError(409, "AlreadyExists", f'{plural} "{key[2]}" already exists', name=key[2])
            return self._store(key, {**content, "status": {}} if "rayjobs" in key[0] else content, "ADDED")

    def patch(self, key: Key, change: Object) -> Object:
        with self.changed:
            found = self.get(key)
            asked = change.get("metadata", {}).get("resourceVersion")
            if asked not in (None, found["metadata"]["resourceVersion"]):
                raise FailureError(
                    409, "Conflict", "the object has been modified; please apply your changes to the latest"
                )
            made = merged(found, change)
            self._check(key, made)
            return self._store(key, made, "MODIFIED")

    def apply(self, key: Key, content: Object, *, manager: str, force: bool, dry: bool = False) -> Object:
        """Server-side, with a field being a path to a value; lists are values."""
        with self.changed:
            known = self.objects.get(key)
            if not dry:  # the namespace of a trial may be one of it
                self._check_namespace(key)
            fields = {".".join(path): value for path, value in leaves(content)}
            owners: dict[str, str] = dict(known["metadata"].get("_owners", {})) if known else {}
            there = {".".join(path): value for path, value in leaves(known)} if known else {}
            causes = [
                {"reason": "FieldManagerConflict", "message": f'conflict with "{owners[path]}"', "field": f".{path}"}
                for path, value in fields.items()
                if owners.get(path, manager) != manager and there.get(path) != value
            ]
            if causes and not force:
                told = ", ".join(cause["field"] for cause in causes)
                raise FailureError(409, "Conflict", f"Apply failed with {len(causes)} conflicts: {told}", causes=causes)
            made = merged(known, content) if known else copy.deepcopy(content)
            for path in [path for path, owner in owners.items() if owner == manager and path not in fields]:
                _drop(made, path.split("."))
            if mistakes := self._mistakes(made):
                # Of a field that is not there: no reason, and the code of a server that has failed (kubernetes#139253).
                what = f"{key[1]}/{key[2]}; {content['apiVersion']}, Kind={content['kind']}"
                raise FailureError(500, "", f"failed to create typed patch object ({what}): {mistakes}")
            made["metadata"]["_owners"] = {**owners, **dict.fromkeys(fields, manager)}
            if dry or made == known:
                return made
            return self._store(key, made, "MODIFIED" if known else "ADDED")

    def delete(self, key: Key) -> Object:
        with self.changed:
            found = self.get(key)
            if "rayjobs" not in key[0]:
                return self._remove(key)
            # KubeRay's finalizer: it is gone when the operator has seen it.
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return self._store(key, merged(found, {"metadata": {"deletionTimestamp": now}}), "MODIFIED")

    def get(self, key: Key) -> Object:
        with self.changed:
            if key not in self.objects:
                plural = key[0].rpartition("/")[2]
                raise FailureError(404, "NotFound", f'{plural} "{key[2]}" not found', name=key[2], kind=plural)
            return self.objects[key]

    def select(self, kind: str, namespace: str, labels: str) -> list[Object]:
        with self.changed:
            return [
                found
                for key, found in sorted(self.objects.items())
                if key[0] == kind and (not namespace or key[1] == namespace) and has_labels(found, labels)
            ]

    def _check_namespace(self, key: Key) -> None:
        if key[1] and not any(at == ("/api/v1/namespaces", "", key[1]) for at in self.objects):
            raise FailureError(404, "NotFound", f'namespaces "{key[1]}" not found', name=key[1], kind="namespaces")

    def _check(self, key: Key, content: Object) -> None:
        self._check_namespace(key)
        if mistakes := self._mistakes(content):
            raise FailureError(422, "Invalid", f'{content["kind"]} "{key[2]}" is invalid: {mistakes}')

    def _mistakes(self, content: Object) -> str:
        plain = {**content, "metadata": {k: v for k, v in content["metadata"].items() if k != "_owners"}}
        return "; ".join(self.mistakes(plain))[:500]


def merged(before: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    made = dict(before) if isinstance(before, dict) else {}
    for name, value in change.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), value)
    return made


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in content.items():
        if name in ("apiVersion", "kind", "_owners", "resourceVersion", "uid", "creationTimestamp") or (
            path == ("metadata",) and name in ("name", "namespace")
        ):
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name.replace(".", "~")))
        else:
            yield (*path, name.replace(".", "~")), value


def _drop(content: Object, path: list[str]) -> None:
    for name in path[:-1]:
        content = content.get(name.replace("~", "."), {})
    content.pop(path[-1].replace("~", "."), None)


def has_labels(found: Object, labels: str) -> bool:
    given = found["metadata"].get("labels", {})
    return all(
        given.get(name) == value for name, _, value in (each.partition("=") for each in labels.split(",") if each)
    )
