"""The objects of one kind in a namespace: listed once, and then kept up by watches.

A RayJob carries its plan, so a list of all of them every other second would be megabytes; a watch brings what has
changed and nothing else.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunery.errors import ProfileError
from tunery.k8s.api import ApiServer, Object, RefusedError

FRESH_S = 1.0
"""What was looked at within this time is not looked at again."""
WATCH_S = 1
"""How long the server holds a watch open that brings nothing: whole seconds, and at least one."""
PAGE = 50


@dataclass(frozen=True)
class Kind:
    """A kind of object, and where the API server has it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        return f"/apis/{self.group}/{self.version}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


RAY_JOBS = Kind("ray.io", "v1", "rayjobs")


class Collection:
    """The objects that have a label, as last seen."""

    def __init__(self, server: ApiServer, kind: Kind, namespace: str, *, label: str) -> None:
        self._server = server
        self._kind = kind
        self._namespace = namespace
        self._label = label
        self._known: dict[str, Object] = {}
        self._version: str | None = None
        """The resource version up to which all is known; None: nothing is."""
        self._looked = 0.0

    def all(self) -> Sequence[Object]:
        """As they were a moment ago."""
        if self._version is None:
            self._list()
        elif time.monotonic() - self._looked > FRESH_S:
            self._catch_up()
        return tuple(self._known.values())

    def put(self, seen: Object) -> None:
        """An answer to a request that has changed one: known without waiting for the watch."""
        known = self._known.get(seen["metadata"]["name"])
        if known is None or _version(known) <= _version(seen):
            self._known[seen["metadata"]["name"]] = seen

    def until(self, done: Callable[[], bool], *, timeout_s: float) -> bool:
        """Follow what happens until `done` holds; False where it did not within the time."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                return False
            self._catch_up() if self._version is not None else self._list()
        return True

    def has(self, name: str) -> bool:
        """Whether it was there when last looked at."""
        return name in self._known

    def _list(self) -> None:
        kind = self._kind
        query = {"labelSelector": self._label, "limit": str(PAGE)}
        while True:
            try:
                self._pages(query)
                return
            except RefusedError as refused:
                if refused.status == http.client.NOT_FOUND:
                    raise ProfileError(
                        f"the API server at {self._server.url} knows no {kind.plural} of {kind.group}/{kind.version}: "
                        "install KubeRay's operator with its definitions (docs/kubernetes.md says how)"
                    ) from refused
                # The pages have taken so long that the server no longer knows the version of the first.
                if refused.status != http.client.GONE or "continue" not in query:
                    raise self._server.unexpected(refused, f"list {self._kind.plural}") from refused
                query.pop("continue")

    def _pages(self, query: dict[str, str]) -> None:
        found: dict[str, Object] = {}
        while True:
            page = self._server.ask("GET", self._kind.path(self._namespace), query=query)
            found |= {item["metadata"]["name"]: item for item in page["items"]}
            if not page["metadata"].get("continue"):
                break
            query["continue"] = page["metadata"]["continue"]
        query.pop("continue", None)
        self._known, self._version = found, page["metadata"]["resourceVersion"]
        self._looked = time.monotonic()

    def _catch_up(self) -> None:
        assert self._version is not None
        kind = self._kind
        events = self._server.follow(
            kind.group, kind.version, self._namespace, kind.plural,
            since=self._version, label_selector=self._label, timeout_seconds=WATCH_S,
        )  # fmt: skip
        try:
            for event, seen in events:
                self._version = seen["metadata"]["resourceVersion"]
                match event:
                    case "DELETED":
                        self._known.pop(seen["metadata"]["name"], None)
                    case "ADDED" | "MODIFIED":
                        self._known[seen["metadata"]["name"]] = seen
        except RefusedError as refused:
            if refused.status != http.client.GONE:
                raise self._server.unexpected(refused, f"watch {kind.plural}") from refused
            self._list()  # it was too long ago: what happened since is not told one by one
        self._looked = time.monotonic()


def _version(seen: Object) -> int:
    """Of one kind they grow; what is no number compares as equal."""
    text = str(seen["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0
