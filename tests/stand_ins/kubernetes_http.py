"""The API server in memory behind HTTP: routes, patches, pages, watches, and the faults that a test asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.stand_ins.kubernetes import ApiServer, FailureError, Fault, Key, Object, has_labels
from tests.stand_ins.listening import listening


@contextmanager
def serving(server: ApiServer, certificate: Path | None = None) -> Iterator[ApiServer]:
    """Serve on a free port of this machine for as long as the context lasts; `certificate`: over TLS."""

    class Bound(_Handler):
        state = server

    with listening(Bound, certificate) as server.url:
        yield server


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
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            if (scheme.lower(), token) != ("bearer", self.state.token):
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
        if self.state.away:
            return Fault(503)
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
            allowed = state.allows(asked["verb"], asked["group"], asked["resource"], asked["namespace"])
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
        group = base.removeprefix("/apis/").partition("/")[0] if base.startswith("/apis/") else ""
        if not state.allows(verb, group, plural, namespace):
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
            if key[0] == kind and key[1] == namespace and has_labels(found, labels):
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
            if key[0] == kind and key[1] == namespace and has_labels(found, labels):
                self._chunk({"type": event, "object": found})
                break
        half = b'{"type": "MODIFIED", "obj'
        self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
        self.wfile.flush()
        raise _LostError

    def _chunk(self, content: Object) -> None:
        line = json.dumps(content).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
