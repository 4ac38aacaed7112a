"""What is refused before anything is served, and how promotions are followed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from tuners.engine import BaseSpec
from tunery.errors import ConflictError, InputError
from tunery.home import Home
from tunery.serving import server as module
from tunery.serving.server import Order, Server

SPEC = BaseSpec("base")
ORDER = Order(models=("a",), host="127.0.0.1", port=0, token="", device="cpu")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (replace(ORDER, host="0.0.0.0"), "without a token only this machine may ask: set one"),
        (replace(ORDER, models=("a", "a")), "a model is named twice"),
        (replace(ORDER, device="mps"), "device 'mps': serve takes cpu or cuda"),
    ],
)
def test_what_cannot_be_served_is_refused(order: Order, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        Server(order, Home(tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_may_ask_without_a_token(host: str, tmp_path: Path) -> None:
    Server(replace(ORDER, host=host), Home(tmp_path))
    Server(replace(ORDER, host="0.0.0.0", token="open sesame"), Home(tmp_path))


class Serving:
    """A server of one model and the replica that it speaks to."""

    def __init__(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.asked, self.answer = 0, 0, ""
        self.served, self.promoted = "a/1", "a/1"
        self.server = Server(ORDER, home)
        self.server._sources, self.server._replicas = {"a": self.source("a")}, {"a": (SPEC, "base-0")}
        monkeypatch.setattr(self.server, "_locate", self.source)
        replica = SimpleNamespace(served=Method(self.told), switch=Method(self.switch))
        monkeypatch.setattr("ray.serve.get_deployment_handle", lambda *_, **__: replica)
        monkeypatch.setattr(module, "base_of", lambda *_, **__: SPEC)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.clock))

    def source(self, _: str) -> Any:
        return SimpleNamespace(name=self.promoted, folder=Path("a"), card=SimpleNamespace(kind="classification"))

    def told(self) -> Any:
        return {"a": SimpleNamespace(version=self.served)}

    def switch(self, *_: object) -> str:
        self.asked += 1
        if self.answer == "dies":
            raise ActorDiedError
        if not self.answer:
            self.served = self.promoted
        return self.answer


@dataclass(frozen=True)
class Method:
    """Of a replica: what `remote` begins has a result."""

    does: Callable[..., Any]

    def remote(self, *arguments: Any) -> Any:
        return SimpleNamespace(result=lambda **_: self.does(*arguments))


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    return Serving(Home(tmp_path), monkeypatch)


def test_what_is_promoted_is_served_once(serving: Serving) -> None:
    assert serving.server.follow() == ()
    serving.promoted = "a/2"
    assert serving.server.follow() == ("a",)
    assert serving.server.follow() == ()
    assert serving.asked == 1


def test_a_version_that_cannot_be_served_is_tried_again_after_longer_and_longer(serving: Serving) -> None:
    serving.promoted, serving.answer = "a/2", "no memory"
    tries = []
    for at in range(0, 100, 2):
        serving.clock = at
        try:
            assert serving.server.follow() == ()
        except InputError as error:
            assert "no memory" in str(error)  # noqa: PT017
            tries.append(at)
    assert tries == [0, 10, 30, 70]
    serving.promoted = "a/3"
    with pytest.raises(InputError, match="no memory"):
        serving.server.follow()
    serving.answer, serving.clock = "", 120
    assert serving.server.follow() == ("a",)


def test_a_replica_that_dies_over_a_version_ends_no_server(serving: Serving) -> None:
    serving.promoted, serving.answer = "a/2", "dies"
    with pytest.raises(InputError, match="a: The actor died"):
        serving.server.follow()


def test_a_switch_that_took_longer_than_it_was_waited_for_is_told_of(serving: Serving) -> None:
    serving.promoted = "a/2"
    serving.served = "a/2"
    assert serving.server.follow() == ("a",)
    assert serving.server.follow() == ()
    assert not serving.asked


def test_a_port_that_is_taken_is_a_conflict_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(replace(ORDER, port=port), Home(tmp_path))
        monkeypatch.setattr(server, "_locate", lambda model: model)
        with pytest.raises(ConflictError, match=f"cannot listen on 127.0.0.1:{port}: .*choose another with --port"):
            server.start()
