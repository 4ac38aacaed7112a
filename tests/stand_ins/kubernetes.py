"""An API server of Kubernetes in memory: objects, resource versions, watches, conflicts, and schemas that are held to.

What the requests of this project go through, over real sockets, and no more: no controllers (a test moves a job's
status as the operator would), and access is one token that may do everything but what is forbidden by name.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

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
                self._check(key, content)
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
                if key[0] == kind and (not namespace or key[1] == namespace) and _has(found, labels)
            ]

    def _check(self, key: Key, content: Object) -> None:
        if key[1] and not any(at == ("/api/v1/namespaces", "", key[1]) for at in self.objects):
            raise FailureError(404, "NotFound", f'namespaces "{key[1]}" not found', name=key[1], kind="namespaces")
        plain = {**content, "metadata": {k: v for k, v in content["metadata"].items() if k != "_owners"}}
        if mistakes := self.mistakes(plain):
            raise FailureError(422, "Invalid", f'{content["kind"]} "{key[2]}" is invalid: {"; ".join(mistakes)[:500]}')


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


def _has(found: Object, labels: str) -> bool:
    given = found["metadata"].get("labels", {})
    return all(
        given.get(name) == value for name, _, value in (each.partition("=") for each in labels.split(",") if each)
    )


@contextmanager
def serving(server: ApiServer, certificate: Path | None = None) -> Iterator[ApiServer]:
    """Serve on a free port of this machine for as long as the context lasts; `certificate`: over TLS."""

    class Bound(_Handler):
        state = server

    made = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    made.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        made.socket = context.wrap_socket(made.socket, server_side=True)
    server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def kubeconfig(server: ApiServer, file: Path, *, token: str | None = None, ca: Path | None = None) -> Path:
    """A file with which a client reaches the server; its context is `tests`."""
    cluster = {"server": server.url, **({"certificate-authority": str(ca)} if ca else {})}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "tests",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": server.token if token is None else token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    return file


class _LostError(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    state: ApiServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would wait 40 ms for the second

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's own name)
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        watching = query.get("watch", "").lower() == "true"
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.state.asked.append(f"WATCH {query['resourceVersion']}" if watching else f"{self.command} {self.path}")
        fault = self._fault(watching=watching)
        try:
            if fault is not None and not fault.after and not fault.watch:
                if fault.status == 0:
                    raise _LostError
                raise FailureError(fault.status, "Injected", "a fault of the tests")
            if self.headers.get("Authorization") != f"Bearer {self.state.token}":
                raise FailureError(401, "Unauthorized", "Unauthorized")
            found = self._found(parts.path, query, body, watching=watching, fault=fault)
            if fault is not None and fault.after:
                raise _LostError
            if found is not None:
                self._send(201 if self.command == "POST" else 200, found)
        except FailureError as failure:
            self._send(failure.code, failure.status, fault.headers if fault is not None else {})
        except (_LostError, BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _fault(self, *, watching: bool) -> Fault | None:
        with self.state.changed:
            for fault in self.state.faults:
                if fault.watch == watching and fault.method in ("", self.command):
                    self.state.faults.remove(fault)
                    return fault
        return None

    def _send(self, code: int, content: Object, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _found(
        self, path: str, query: Mapping[str, str], body: Object, *, watching: bool, fault: Fault | None
    ) -> Object | None:
        state = self.state
        if path == "/version":
            return {"gitVersion": "v1.33.1", "major": "1", "minor": "33"}
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            allowed = f"{asked['verb']} {asked['resource']}" not in state.forbidden
            return {**body, "status": {"allowed": allowed}}
        base = "/".join(path.split("/")[: 3 if path.startswith("/api/") else 4])
        kinds = state.kinds.get(base)
        if kinds is None:
            raise FailureError(404, "NotFound", "the server could not find the requested resource")
        if path == base:
            listed = [{"kind": kind, "name": plural, "namespaced": own} for kind, (plural, own) in kinds.items()]
            return {"kind": "APIResourceList", "groupVersion": base.partition("/")[2], "resources": listed}
        rest = path.removeprefix(base).strip("/").split("/")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        if plural not in {each for each, _ in kinds.values()}:
            raise FailureError(404, "NotFound", "the server could not find the requested resource")
        verbs = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(self.command, "watch" if watching else "get" if name else "list")
        if f"{verb} {plural}" in state.forbidden:
            message = (
                f'{plural} is forbidden: User "ann" cannot {verb} resource "{plural}" in the namespace "{namespace}"'
            )
            raise FailureError(403, "Forbidden", message)
        kind, labels = f"{base}/{plural}", query.get("labelSelector", "")
        if watching:
            self._watch(kind, namespace, labels, query, broken=fault is not None)
            return None
        match self.command, name:
            case "GET", "":
                return self._page(state.select(kind, namespace, labels), query)
            case "GET", _:
                return state.get((kind, namespace, name))
            case "POST", _:
                return state.create((kind, namespace, body["metadata"]["name"]), body)
            case "DELETE", _:
                return state.delete((kind, namespace, name))
            case _:
                key = (kind, namespace, name)
                if self.headers["Content-Type"] == "application/apply-patch+yaml":
                    return state.apply(
                        key,
                        body,
                        manager=query["fieldManager"],
                        force=query.get("force") == "true",
                        dry="dryRun" in query,
                    )
                return state.patch(key, body)

    def _page(self, found: list[Object], query: Mapping[str, str]) -> Object:
        start, limit = int(query.get("continue", 0)), int(query.get("limit", 500))
        more = {"continue": str(start + limit)} if len(found) > start + limit else {}
        return {"items": found[start : start + limit], "metadata": {"resourceVersion": str(self.state.version), **more}}

    def _watch(self, kind: str, namespace: str, labels: str, query: Mapping[str, str], *, broken: bool) -> None:
        """Chunks of a line each, for as long as the client wants them."""
        state, since = self.state, int(query["resourceVersion"])
        gone = FailureError(410, "Expired", "too old resource version")
        with state.changed:
            too_old = since < state.forgotten
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if too_old:
            self._chunk({"type": "ERROR", "object": gone.status})
            self.wfile.write(b"0\r\n\r\n")
            return
        if broken:
            self._broken(kind, namespace, labels, since)
        # Its time is shortened: what happened before is sent at once, and nobody waits for what does not come.
        for version, event, key, found in self._news(since):
            if key[0] == kind and key[1] == namespace and _has(found, labels):
                self._chunk({"type": event, "object": found})
            since = version
        bookmark = {"kind": "Bookmark", "metadata": {"resourceVersion": str(since)}}
        if query.get("allowWatchBookmarks", "").lower() == "true":
            self._chunk({"type": "BOOKMARK", "object": bookmark})
        self.wfile.write(b"0\r\n\r\n")

    def _news(self, since: int) -> list[tuple[int, str, Key, Object]]:
        with self.state.changed:
            self.state.changed.wait_for(lambda: self.state.version > since, timeout=0.05)
            return [each for each in self.state.events if each[0] > since]

    def _broken(self, kind: str, namespace: str, labels: str, since: int) -> None:
        for _, event, key, found in self._news(since):
            if key[0] == kind and key[1] == namespace and _has(found, labels):
                self._chunk({"type": event, "object": found})
                break
        half = b'{"type": "MODIFIED", "obj'
        self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
        self.wfile.flush()
        raise _LostError

    def _chunk(self, content: Object) -> None:
        line = json.dumps(content).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
