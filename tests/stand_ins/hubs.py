"""A Hugging Face hub and a ModelScope in one HTTP server: the routes that a download goes through, over real sockets.

It counts what it sends, can break a connection in the middle of a file, and can send a file that was altered.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 10_000
"""Bytes from which a file is one of git's large files (LFS), as on the hub."""


@dataclass
class Repository:
    """A repository with one branch."""

    files: dict[str, bytes]
    private: bool = False
    """Shown with the token only."""
    gated: bool = False
    """Listed for everybody, its files given with the token only."""

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()

    @classmethod
    def of(cls, folder: Path, **options: bool) -> Repository:
        """The files of a folder."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return cls(files, **options)


@dataclass
class Sent:
    """An answer with a file's bytes."""

    path: str
    range: str
    """The header of the request; empty without one."""
    count: int


@dataclass
class Hubs:
    """What is served, and what was."""

    models: dict[str, Repository] = field(default_factory=dict)
    data: dict[str, Repository] = field(default_factory=dict)
    token: str = "the-right-token"
    break_after: dict[str, list[int]] = field(default_factory=dict)
    """File -> bytes after which its next answers end, one each."""
    altered: set[str] = field(default_factory=set)
    """Files that are sent with other bytes than the listing says."""
    requests: list[str] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    authorised: list[str] = field(default_factory=list)
    """The tokens that came."""
    url: str = ""

    @property
    def bytes_sent(self) -> int:
        return sum(each.count for each in self.sent)

    def forget(self) -> None:
        """What was served so far."""
        self.requests.clear()
        self.sent.clear()


@contextmanager
def serving(hubs: Hubs) -> Iterator[Hubs]:
    """Serve on a free port of this machine for as long as the context lasts."""

    class Bound(_Handler):
        state = hubs

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    hubs.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hubs
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hubs
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's own name)
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        self.state.requests.append(f"{self.command} {path}")
        if token := self.headers.get("Authorization"):
            self.state.authorised.append(token.removeprefix("Bearer "))
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, path):
                getattr(self, method)(**match.groupdict())
                return
        self._json({"error": f"no route {path}"}, 404)

    # -- Hugging Face ------------------------------------------------------------------------------------------

    def _info(self, kind: str, id: str, revision: str = "main") -> None:  # noqa: A002
        if repository := self._repository(kind, id, revision):
            siblings = [{"rfilename": name} for name in repository.files]
            self._json({"id": id, "sha": repository.commit, "siblings": siblings, "private": False, "tags": []})

    def _tree(self, kind: str, id: str, revision: str, under: str | None) -> None:  # noqa: A002
        if repository := self._repository(kind, id, revision):
            under = (under or "").strip("/")
            recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = _entries(repository, under, recursive=recursive)
            if under and not entries:
                self._missing("EntryNotFound")
            else:
                self._json(entries)

    def _paths_info(self, kind: str, id: str, revision: str) -> None:  # noqa: A002
        if repository := self._repository(kind, id, revision):
            if "json" in self.headers.get("Content-Type", ""):
                asked = json.loads(self.body)["paths"]
            else:
                asked = parse_qs(self.body.decode())["paths"]
            every = _entries(repository, "", recursive=True)
            self._json([entry for entry in every if entry["path"] in asked])

    def _resolve(self, id: str, revision: str, path: str, kind: str = "") -> None:  # noqa: A002
        repository = self._repository("datasets" if kind else "models", id, revision)
        if repository is None:
            return
        if repository.gated and not self._trusted():
            self._missing("GatedRepo", 403)
            return
        if path not in repository.files:
            self._missing("EntryNotFound", commit=repository.commit)
            return
        content, size = repository.files[path], len(repository.files[path])
        headers = {"X-Repo-Commit": repository.commit}
        if size >= LARGE:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"ETag": f'"{digest}"', "X-Linked-Size": str(size), "X-Linked-Etag": f'"{digest}"'}
        else:
            headers["ETag"] = f'"{_git_name(content)}"'
        self._file(path, content, headers)

    # -- ModelScope --------------------------------------------------------------------------------------------

    def _scope_files(self, id: str) -> None:  # noqa: A002
        if repository := self._scope_repository(id):
            files = [
                {
                    "Name": name.rpartition("/")[2], "Path": name, "Type": "blob", "Size": len(content), "IsLFS": False,
                    "Revision": repository.commit, "CommittedDate": 1_734_507_583,
                    "Sha256": hashlib.sha256(content).hexdigest(),
                }
                for name, content in repository.files.items()
            ]  # fmt: skip
            folders = {name.rpartition("/")[0] for name in repository.files} - {""}
            files += [{"Name": name, "Path": name, "Type": "tree", "Size": 0, "Sha256": ""} for name in folders]
            self._json({"Code": 200, "Success": True, "Data": {"Files": files, "LatestCommitter": {"Id": ""}}})

    def _scope_file(self, id: str) -> None:  # noqa: A002
        repository, path = self._scope_repository(id), self.query["FilePath"][0]
        if repository and path not in repository.files:
            self._json({"Code": 10990101003, "Success": False, "Message": "file not found"}, 404)
        elif repository:
            self._file(path, repository.files[path], {})

    def _scope_repository(self, id: str) -> Repository | None:  # noqa: A002
        repository = self.state.models.get(id)
        asked = self.query["Revision"][0]
        if repository is None or asked not in ("master", repository.commit):
            self._json({"Code": 10010205001, "Success": False, "Message": "the model does not exist"}, 404)
            return None
        if repository.gated and not self._trusted():
            self._json({"Code": 10010205002, "Success": False, "Message": "no permission"}, 403)
            return None
        return repository

    # -- both --------------------------------------------------------------------------------------------------

    def _repository(self, kind: str, id: str, revision: str) -> Repository | None:  # noqa: A002
        """None where an error was answered."""
        repository = (self.state.models if kind == "models" else self.state.data).get(id)
        if repository is None or (repository.private and not self._trusted()):
            self._missing("RepoNotFound", 401)
            return None
        if revision not in ("main", repository.commit):
            self._missing("RevisionNotFound")
            return None
        return repository

    def _trusted(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.state.token}"

    def _file(self, path: str, content: bytes, headers: Mapping[str, str]) -> None:
        if path in self.state.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = self.headers.get("Range", "")
        start, end = 0, len(content)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
            start = int(found[1])
            end = int(found[2]) + 1 if found[2] else end
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = self.state.break_after.get(path)
        count = min(breaks.pop(0), end - start) if breaks else end - start
        # Noted first: who has the last byte may look at once.
        self.state.sent.append(Sent(path, asked, count))
        self.wfile.write(content[start : start + count])
        self.close_connection = self.close_connection or count < end - start

    def _missing(self, code: str, status: int = 404, *, commit: str = "") -> None:
        self._json({"error": code}, status, {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})})

    def _json(self, document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


_ID = r"(?P<id>[^/]+/[^/]+)"
_KIND = r"(?P<kind>models|datasets)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = (
    (rf"/api/v1/models/{_ID}/repo/files", "_scope_files"),
    (rf"/api/v1/models/{_ID}/repo", "_scope_file"),
    (rf"/api/{_KIND}/{_ID}", "_info"),
    (rf"/api/{_KIND}/{_ID}/revision/{_REVISION}", "_info"),
    (rf"/api/{_KIND}/{_ID}/tree/{_REVISION}(?P<under>/.*)?", "_tree"),
    (rf"/api/{_KIND}/{_ID}/paths-info/{_REVISION}", "_paths_info"),
    (rf"/(?P<kind>datasets)/{_ID}/resolve/{_REVISION}/(?P<path>.+)", "_resolve"),
    (rf"/{_ID}/resolve/{_REVISION}/(?P<path>.+)", "_resolve"),
)


def _entries(repository: Repository, under: str, *, recursive: bool) -> list[dict[str, Any]]:
    """A tree as the hub lists it: files and folders."""
    prefix = f"{under}/" if under else ""
    files = {name: content for name, content in repository.files.items() if name.startswith(prefix)}
    folders = {
        "/".join(parts[:depth])
        for name in files
        for parts in (name.split("/"),)
        for depth in range(1, len(parts))
        if "/".join(parts[:depth]).startswith(prefix)
    }
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)
    ]
    for name, content in sorted(files.items()):
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_name(content)}
        if len(content) >= LARGE:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return [entry for entry in entries if recursive or "/" not in entry["path"].removeprefix(prefix)]


def _git_name(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
