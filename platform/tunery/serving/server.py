"""Starts Ray Serve with the models of a command line, and follows their promotions."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from storage.errors import StorageError
from tuners.engine import BaseSpec
from tunery.errors import ConflictError, InputError, TuneryError
from tunery.home import Home
from tunery.inference.engine import base_of
from tunery.inference.source import Source, locate
from tunery.serving.front import Front, Known
from tunery.serving.messages import ModelOut, described
from tunery.serving.replica import Replica, Version

APP = "tunery"
ANSWER_S = 120.0
"""Within which a replica says what it serves, or has read another version."""
FIRST_WAIT_S, LONGEST_WAIT_S = 10.0, 600.0
"""Before a version that could not be served is tried again, and between later tries."""
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


@dataclass(frozen=True)
class _Refusal:
    """A version that could not be served."""

    version: str
    until: float
    """When it is tried again (time.monotonic)."""
    next_wait_s: float


class Server:
    """Holds what is served. Used within `started_ray`."""

    def __init__(self, order: Order, home: Home) -> None:
        if not order.token and order.host not in LOOPBACK:
            raise InputError(f"without a token only this machine may ask: set one, or leave {order.host!r} out")
        if len(set(order.models)) < len(order.models):
            raise InputError("a model is named twice")
        if order.device not in ("cpu", "cuda"):
            raise InputError(
                f"device {order.device!r}: serve takes cpu or cuda; CUDA_VISIBLE_DEVICES chooses among GPUs"
            )
        self._order, self._home = order, home
        self._sources: dict[str, Source] = {}
        self._replicas: dict[str, tuple[BaseSpec, str]] = {}
        """By model: its base, and the replica that has it."""
        self._refusals: dict[str, _Refusal] = {}
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
        """Serve what the names stand for now: the models that changed, also where a replica was started anew.

        Raises InputError for what cannot be served in the place of what was; that stays, and the others change.
        """
        changed, wrong = [], []
        for model in self._order.models:
            try:
                if self._follow(model):
                    changed.append(model)
            except (TuneryError, StorageError, RayError, RayServeException, TimeoutError) as error:
                wrong.append(f"{model}: {next(iter(str(error).splitlines()), '') or type(error).__name__}")
        if wrong:
            raise InputError("; ".join(wrong))
        return tuple(changed)

    def _follow(self, model: str) -> bool:
        source, (spec, name) = self._locate(model), self._replicas[model]
        replica: DeploymentHandle[Any] = serve.get_deployment_handle(name, app_name=APP)
        if replica.served.remote().result(timeout_s=ANSWER_S)[model].version == source.name:
            changed = self._sources[model].name != source.name  # a switch that took longer than it was waited for
            self._sources[model] = source
            return changed
        refusal = self._refusals.get(model)
        if refusal and refusal.version == source.name and time.monotonic() < refusal.until:
            return False
        wanted = replace(base_of(source.folder, source.card, device=self._order.device), language=spec.language)
        shared = sum(other == name for _, other in self._replicas.values()) > 1
        other_task = source.card.kind != self._sources[model].card.kind
        try:
            if other_task or (shared and wanted != spec):
                what = "task" if other_task else "base, which others share,"
                raise InputError(f"{source.name} has another {what} than what is served: start the server again")
            if why := replica.switch.remote(model, _version(source), wanted).result(timeout_s=ANSWER_S):
                raise InputError(why)
        except Exception:
            # Each try may read a whole base, beside what is served.
            wait_s = refusal.next_wait_s if refusal and refusal.version == source.name else FIRST_WAIT_S
            self._refusals[model] = _Refusal(source.name, time.monotonic() + wait_s, min(2 * wait_s, LONGEST_WAIT_S))
            raise
        self._refusals.pop(model, None)
        self._sources[model], self._replicas[model] = source, (wanted, name)
        return True

    @property
    def serving(self) -> Serving:
        """What is served now."""
        host = f"[{self._order.host}]" if ":" in self._order.host else self._order.host
        return Serving(
            f"http://{host}:{self._port}",
            tuple(
                described(model, self._sources[model].name, self._sources[model].card) for model in self._order.models
            ),
        )

    def _locate(self, model: str) -> Source:
        return locate(model, home=self._home, profile=self._order.profile)

    def _run(self) -> None:
        groups = self._groups()
        threads = max(1, (os.cpu_count() or 1) // len(groups))
        # Ray counts in ten-thousandths: shares that are rounded up would not all fit.
        gpus = 0.0 if self._order.device == "cpu" else 10_000 // len(groups) / 10_000
        replicas: dict[str, Any] = {}
        for number, (spec, models) in enumerate(groups.items()):
            name = f"base-{number}"
            deployment = _deployment(Replica).options(name=name, ray_actor_options={"num_cpus": 0, "num_gpus": gpus})
            versions = {model: _version(self._sources[model]) for model in models}
            replicas[name] = deployment.bind(spec, self._order.device, threads, versions)
            self._replicas |= dict.fromkeys(models, (spec, name))
        known = {
            model: Known(model, self._sources[model].card.kind, self._replicas[model][1])
            for model in self._order.models
        }
        routes = _deployment(Front).options(ray_actor_options={"num_cpus": 0})
        serve.run(routes.bind(self._order.token, replicas, known), name=APP, route_prefix="/")

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


def _version(source: Source) -> Version:
    return Version(source.name, str(source.folder.resolve()))


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
