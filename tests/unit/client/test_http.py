"""A server that is away for a while, one that lets nobody in, and one that is none: all real, on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_ports
from tunery.client import _http
from tunery.client._http import Server
from tunery.client._trust import Trust
from tunery.errors import ProfileError, UnreachableError
from tunery.home import Home
from tunery.profile import load_profile


class Answers(HTTPServer):
    """Answers with these statuses, one after the other, the last one again and again; 0 hangs up without a word."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = [200]
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status = self.server.statuses.pop(0) if len(self.server.statuses) > 1 else self.server.statuses[0]
        if status == 0:
            self.close_connection = True
            return
        content = b'{"a": 1}' if status == 200 else b"why\nnot"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    monkeypatch.setattr(_http, "FIRST_WAITS_S", (0.01,))
    monkeypatch.setattr(_http, "WAITS_S", (0.01,) * 5)
    made = Answers()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def server(answers: Answers) -> Server:
    return Server(
        "the test", f"http://127.0.0.1:{answers.server_port}/", rights="the secret S of profile 'p'", trust=Trust()
    )


def test_a_lost_connection_is_tried_again(answers: Answers, server: Server) -> None:
    assert server.ask_json("GET", "/x", "look") == {"a": 1}
    answers.statuses = [0, 502, 503, 500, 429, 200]
    assert server.ask_json("GET", "/y", "look") == {"a": 1}
    assert answers.asked == ["/x", *["/y"] * 6]


def test_with_a_bound_that_is_lower_before_the_first_answer(answers: Answers, server: Server) -> None:
    answers.statuses = [0]
    with pytest.raises(
        UnreachableError, match=r"the test at http://127\.0\.0\.1:\d+ does not answer: .*goes on without"
    ):
        server.ask("GET", "/")
    assert len(answers.asked) == 2
    answers.statuses = [200, 503]
    server.ask("GET", "/")
    with pytest.raises(UnreachableError, match="does not answer: HTTP 503"):
        server.ask("GET", "/")
    assert len(answers.asked) == 2 + 1 + 6


def test_what_was_refused_is_not_asked_again_and_names_the_secret(answers: Answers, server: Server) -> None:
    answers.statuses = [401]
    with pytest.raises(ProfileError, match=r"refuses the request \(HTTP 401: why\nnot\): the secret S of profile 'p'"):
        server.ask("GET", "/")
    assert len(answers.asked) == 1


def test_other_answers(answers: Answers, server: Server) -> None:
    answers.statuses = [404]
    assert server.ask_json("GET", "/", "look") is None
    answers.statuses = [500]  # of a request that changes something, it is an answer
    with pytest.raises(UnreachableError, match="cannot start it: HTTP 500, not"):
        server.ask_json("POST", "/", "start it")
    assert len(answers.asked) == 2


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "FIRST_WAITS_S", ())
    (port,) = free_ports(1)
    with pytest.raises(UnreachableError, match=f"the test at http://127.0.0.1:{port} does not answer"):
        Server("the test", f"http://127.0.0.1:{port}", rights="", trust=Trust()).ask("GET", "/")


def test_certificates_that_are_none_are_a_mistake_in_the_profile(tmp_path: Path) -> None:
    profile = load_profile("local", Home(tmp_path)).model_copy(update={"target": "ray"})
    assert Trust.of(profile).tls is True
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(ProfileError, match=f"ca of profile 'local': {path} holds no certificates"):
            Trust.of(profile.model_copy(update={"ca": str(path)}))
