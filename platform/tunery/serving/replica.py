"""The models of one base, in a process of their own: requests that come together are computed together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from ray import serve

from tuners.engine import BaseSpec
from tuners.engine.room import ran_out
from tuners.errors import TunerError
from tunery.errors import ConflictError, InputError, TuneryError
from tunery.inference.card import AdapterCard
from tunery.inference.engine import load_base
from tunery.inference.generator import Answer
from tunery.inference.predictor import Prediction
from tunery.inference.source import Source
from tunery.inference.together import Asked, Together
from tunery.serving.messages import ModelOut, described

log = logging.getLogger("ray.serve")

MOST_TOGETHER = 64
"""Requests of one batch."""
WAIT_S = 0.004
"""For which a request waits for others: short beside a forward."""


@dataclass(frozen=True)
class Version:
    """A model's files."""

    name: str
    """Of the registered version, or the folder."""
    folder: str


Fault = Literal["bad_input", "overloaded", "internal"]


@dataclass(frozen=True)
class Said:
    """To one request: of the version that said it, or why there is no answer."""

    version: str = ""
    results: tuple[Prediction | Answer, ...] = ()
    wrong: str = ""
    fault: Fault = "bad_input"
    """Whose it is, where something is wrong."""


Request = Sequence[Asked]
"""Inputs of one model."""


@serve.deployment(max_ongoing_requests=4 * MOST_TOGETHER, max_queued_requests=16 * MOST_TOGETHER)
class Replica:
    """Everything here runs in one event loop, and nothing waits in the middle: a switch and a batch never meet."""

    def __init__(self, spec: BaseSpec, device: str, threads: int, models: Mapping[str, Version]) -> None:
        """`threads` of torch, on a CPU."""
        if device == "cpu":
            torch.set_num_threads(threads)
        self._spec, self._device = spec, device
        self._together = Together(load_base(spec, device))
        self._versions: dict[str, str] = {}
        self._loading = False
        """Another base, for a switch."""
        for model, version in models.items():
            self._read(model, version)

    async def switch(self, model: str, version: Version, spec: BaseSpec) -> str:
        """Serve another version of a model from now on. Why not, where it cannot be read: the one before stays.

        With another base, as a model has of which every weight was trained, it has to be the only one here: both bases
        are in memory for a moment, and the one before answers until then.
        """
        try:
            if spec == self._spec:
                self._read(model, version)
            else:
                await self._rebase(model, version, spec)
        except (TuneryError, OSError, ValueError, RuntimeError) as error:
            return f"{version.name} cannot be served: {error}"
        return ""

    async def _rebase(self, model: str, version: Version, spec: BaseSpec) -> None:
        """Raises what reading raises."""
        if self._loading:
            raise ConflictError("another version is being read")
        self._loading = True
        try:
            self._together = await asyncio.to_thread(self._anew, spec, model, version)
        finally:
            self._loading = False
        self._spec, self._versions = spec, {model: version.name}

    async def served(self) -> dict[str, ModelOut]:
        """What is asked here, as it is now."""
        return {model: described(model, name, self._together.card(model)) for model, name in self._versions.items()}

    def _read(self, model: str, version: Version) -> None:
        self._together.add(model, _source(version))
        self._versions[model] = version.name

    def _anew(self, spec: BaseSpec, model: str, version: Version) -> Together:
        together = Together(load_base(spec, self._device))
        together.add(model, _source(version))
        return together

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def ask(self, requests: list[Request]) -> list[Said]:
        """What each request's model says to its inputs. A wrong input spoils no other's answer."""
        try:
            results = iter(self._together.ask([each for request in requests for each in request]))
        except (InputError, TunerError, RuntimeError):
            # One request's input, or all of them together in memory: each for itself, then.
            return [self._alone(request) for request in requests]
        return [Said(self._version(request), tuple(next(results) for _ in request)) for request in requests]

    def _alone(self, request: Request) -> Said:
        try:
            return Said(self._version(request), tuple(self._together.ask(request)))
        except (InputError, TunerError) as error:
            return Said(wrong=str(error))
        except RuntimeError as error:
            if ran_out(error):
                return Said(wrong="no memory for it: ask with fewer or shorter inputs at once", fault="overloaded")
            log.exception("a request of %d inputs", len(request))
            return Said(wrong=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}", fault="internal")

    def _version(self, request: Request) -> str:
        return self._versions[request[0].model]


def _source(version: Version) -> Source:
    folder = Path(version.folder)
    return Source(version.name, folder, AdapterCard.read(folder))
