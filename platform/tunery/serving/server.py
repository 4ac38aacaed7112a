"""Starts Ray Serve with the models of a command line, and follows their promotions."""

from __future__ import annotations

import logging
import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions

from tuners.engine import BaseSpec
from tunery.errors import ConflictError, InputError
from tunery.home import Home
from tunery.inference.engine import base_of
from tunery.inference.source import Source, locate
from tunery.serving.front import Front
from tunery.serving.messages import ModelOut
from tunery.serving.replica import Replica

APP = "tunery"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Order:
    """What is to be served, and where."""

    models: tuple[str, ...]
    """As `locate` takes them."""
    host: str
    port: int
    """0: one that is free."""
    token: str
    """Empty: none is needed; only where the host is this machine alone."""
    device: str
    profile: str | None = None


@dataclass(frozen=True)
class Serving:
    """What is served now."""

    url: str
    models: tuple[ModelOut, ...]


class Server:
    """Holds what is served. Used within `started_ray`."""

    def __init__(self, order: Order, home: Home) -> None:
        if not order.token and order.host not in LOOPBACK:
            raise InputError(f"without a token only this machine may ask: set one, or leave {order.host!r} out")
        if len(set(order.models)) < len(order.models):
            raise InputError("a model is named twice")
        self._order, self._home = order, home
        self._sources: dict[str, Source] = {}
        self._port = order.port

    def start(self) -> Serving:
        """Load, and answer. Raises NotFoundError, InputError, UnreachableError, and ConflictError for a taken port."""
        self._sources = {model: self._locate(model) for model in self._order.models}
        self._port = self._port or _free_port(self._order.host)
        _check_free(self._order.host, self._port)
        # What it tells of itself at every start is nothing to who only wants an answer.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options=HTTPOptions(host=self._order.host, port=self._port))
        self._run()
        return self.serving

    def follow(self) -> tuple[str, ...]:
        """Serve what aliases stand for now: the models that changed. Where it raises, as `start` does, nothing has."""
        found = {model: self._locate(model) for model in self._order.models}
        changed = tuple(model for model in found if found[model].name != self._sources[model].name)
        if changed:
            before, self._sources = self._sources, found
            try:
                self._run()
            except BaseException:
                self._sources = before
                raise
        return changed

    @property
    def serving(self) -> Serving:
        """What is served now."""
        host = f"[{self._order.host}]" if ":" in self._order.host else self._order.host
        return Serving(f"http://{host}:{self._port}", tuple(map(self._described, self._order.models)))

    def _locate(self, model: str) -> Source:
        return locate(model, home=self._home, profile=self._order.profile)

    def _run(self) -> None:
        """Serve changes what differs from what runs: another version is read by the replica that runs already."""
        groups = self._groups()
        threads = max(1, (os.cpu_count() or 1) // len(groups))
        gpus = 0.0 if self._order.device == "cpu" else 1 / len(groups)
        replicas: dict[str, Any] = {}
        front: dict[str, Any] = {}
        for spec, models in groups.items():
            name = f"base-{zlib.crc32(repr(spec).encode()):08x}"
            sources = [self._sources[model] for model in models]
            replicas[name] = (
                _deployment(Replica)
                .options(
                    name=name,
                    ray_actor_options={"num_cpus": 0, "num_gpus": gpus},
                    user_config={
                        model: (source.name, str(source.folder.resolve()))
                        for model, source in zip(models, sources, strict=True)
                    },
                )
                .bind(spec, self._order.device, threads)
            )
            front |= {model: {"described": self._described(model).model_dump(), "replica": name} for model in models}
        routes = _deployment(Front).options(
            ray_actor_options={"num_cpus": 0}, user_config={model: front[model] for model in self._order.models}
        )
        serve.run(routes.bind(self._order.token, replicas), name=APP, route_prefix="/")

    def _groups(self) -> Mapping[BaseSpec, Sequence[str]]:
        """Those on one base."""
        found: dict[BaseSpec, list[str]] = {}
        for model in self._order.models:
            spec = base_of(self._sources[model].folder, self._sources[model].card, device=self._order.device)
            found.setdefault(replace(spec, language=False), []).append(model)
        return {
            replace(spec, language=any(self._sources[model].card.kind == "generation" for model in models)): models
            for spec, models in found.items()
        }

    def _described(self, model: str) -> ModelOut:
        source = self._sources[model]
        card = source.card
        return ModelOut(
            id=model, version=source.name, task=card.task, kind=card.kind, labels=card.labels, base=card.base.id
        )


def _deployment(cls: Any) -> serve.Deployment:
    """Serve's decorators have no types."""
    assert isinstance(cls, serve.Deployment)
    return cls


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _check_free(host: str, port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As the server will: what a server of before has left behind is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConflictError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
