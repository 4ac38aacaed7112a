"""The models of one base, in a process of their own: requests that come together are computed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ray import serve

from tuners.engine import Base, BaseSpec
from tunery.errors import InputError
from tunery.inference.card import AdapterCard
from tunery.inference.generator import Answer
from tunery.inference.predictor import Prediction
from tunery.inference.source import Source
from tunery.inference.together import Asked, Together

MOST_TOGETHER = 64
"""Requests of one batch."""
WAIT_S = 0.004
"""For which a request waits for others: short beside a forward."""


@dataclass(frozen=True)
class Said:
    """To one request: of the version that said it, or why there is no answer."""

    version: str = ""
    results: tuple[Prediction | Answer, ...] = ()
    wrong: str = ""


Request = Sequence[Asked]
"""Inputs of one model."""


@serve.deployment(max_ongoing_requests=4 * MOST_TOGETHER)
class Replica:
    """Serve's `user_config` names the models: another version of one comes without a restart."""

    def __init__(self, spec: BaseSpec, device: str, threads: int) -> None:
        """`threads` of torch, on a CPU."""
        if device == "cpu":
            torch.set_num_threads(threads)
        self._together = Together(Base.load(spec, device))
        self._versions: dict[str, str] = {}

    def reconfigure(self, models: Mapping[str, tuple[str, str]]) -> None:
        """Model -> its version and folder; those that are not named any more go."""
        for model, (version, folder) in models.items():
            if self._versions.get(model) != version:
                # Read whole before it takes the place: whoever asks meanwhile is answered by the one before.
                self._together.add(model, Source(version, Path(folder), AdapterCard.read(Path(folder))))
                self._versions[model] = version
        for model in self._versions.keys() - models.keys():
            self._together.remove(model)
            del self._versions[model]

    @serve.batch(max_batch_size=MOST_TOGETHER, batch_wait_timeout_s=WAIT_S)
    async def ask(self, requests: list[Request]) -> list[Said]:
        """What each request's model says to its inputs. A wrong input spoils no other's answer."""
        try:
            results = iter(self._together.ask([each for request in requests for each in request]))
        except InputError:
            return [self._alone(request) for request in requests]
        return [Said(self._version(request), tuple(next(results) for _ in request)) for request in requests]

    def _alone(self, request: Request) -> Said:
        try:
            return Said(self._version(request), tuple(self._together.ask(request)))
        except InputError as error:
            return Said(wrong=str(error))

    def _version(self, request: Request) -> str:
        return self._versions[request[0].model]
