"""What is refused before anything is served."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tunery.errors import ConflictError, InputError
from tunery.home import Home
from tunery.serving.server import Order, Server

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
