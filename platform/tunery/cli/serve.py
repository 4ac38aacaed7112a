"""`platform serve`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from storage.errors import StorageError
from tunery.cli import extras
from tunery.cli._models import DeviceOption, quiet_libraries
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, only_stderr, table
from tunery.errors import InputError, TuneryError
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.serving.server import Serving

PANEL = Panel.MODELS
ORDER = 15
TOKEN = "TUNERY_SERVE_TOKEN"
LOOK_EVERY_S = 2.0
"""How soon a promotion is served."""


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="NAME (its champion), NAME@ALIAS, NAME/VERSION, or a folder.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: one that is free.")] = 8000,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Answer over HTTP with one or more models, until Ctrl-C.

    POST /v1/predict and /v1/chat/completions, GET /v1/models, /health, /metrics, and /docs, which describes them.
    Models on one base share it, and requests that come together are computed together. A model's champion is followed:
    when another version is promoted it is served, without a restart.

    The environment's TUNERY_SERVE_TOKEN is the token that requests must have; without one only this machine may ask.
    With -o json: {url, models}, once it answers.
    """
    extras.require("cluster", "serve")
    quiet_libraries()
    with only_stderr():
        from tunery.cluster.start import started_ray
        from tunery.inference.loading import usable_device
        from tunery.profile import load_profile
        from tunery.serving.server import Order, Server

        home = Home.from_environment()
        order = Order(tuple(models), host, port, os.environ.get(TOKEN, ""), usable_device(device), profile)
        server = Server(order, home)
        place = load_profile(profile, home)
        if place.ray:
            raise InputError("serve runs on this machine: name a profile without a Ray cluster")
        ray = started_ray(place, namespace="tunery-serve")
    with contextlib.ExitStack() as stack:
        with only_stderr():
            stack.enter_context(ray)
            serving = server.start()
        _tell(serving, output, token=bool(order.token))
        with only_stderr():
            _follow(server)


def _tell(serving: Serving, output: Format, *, token: bool) -> None:
    document = {"url": serving.url, "models": [model.model_dump() for model in serving.models]}
    listed = table("model", "version", "task", "base")
    for model in serving.models:
        listed.add_row(model.id, model.version, model.task, model.base)
    first = serving.models[0]
    header = f' -H "Authorization: Bearer ${TOKEN}"' if token else ""
    body = (
        f'{{"model": "{first.id}", "messages": [{{"role": "user", "content": "..."}}]}}'
        if first.kind == "generation"
        else f'{{"model": "{first.id}", "inputs": [{{"text": "..."}}]}}'
    )
    route = "chat/completions" if first.kind == "generation" else "predict"
    emit(
        output,
        document,
        listed,
        Text(f"answers at {serving.url}, described at {serving.url}/docs; Ctrl-C ends it"),
        next_steps=[f"curl {serving.url}/v1/{route}{header} -H 'Content-Type: application/json' -d '{body}'"],
    )


def _follow(server: Any) -> None:
    asked, trouble = _asked_to_end(), ""
    while not asked.wait(LOOK_EVERY_S):
        try:
            for model in server.follow():
                version = next(each.version for each in server.serving.models if each.id == model)
                note(f"{model}: {version} is served from now on")
            trouble = ""
        except (TuneryError, StorageError, OSError, RuntimeError) as error:
            # What is served goes on; a registry or a replica that is away is told once.
            if str(error) != trouble:
                trouble = str(error)
                note(f"still serving what was served: {error}")
    note("ended")


def _asked_to_end() -> threading.Event:
    """Set by the first signal; a second one interrupts what goes on.

    An exception out of a signal's handler may be raised within a finaliser, where Python drops it. Both signals are
    sent by what looks after processes; and a shell starts what runs behind it deaf to the first.
    """
    asked = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, hear)
    return asked
