"""TensorBoard's event files beside MLflow, for those who ask for them: a folder a trial, written as it trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from tunery.cluster.messages import SeatName, Value


class EventFiles:
    """`<root>/<study>/<trial>/events...`; `tensorboard --logdir <root>` shows them."""

    def __init__(self, root: Path) -> None:
        """Nothing is created until a trial has begun."""
        self._root = root
        self._writers: dict[SeatName, Any] = {}

    def started(self, name: SeatName, settings: Mapping[str, Value]) -> None:
        """A trial and what it is trained with."""
        rows = "\n".join(f"| {path} | {value} |" for path, value in settings.items())
        self._writer(name).add_text("settings", f"| field | value |\n|---|---|\n{rows}", 0)

    def metrics(self, name: SeatName, values: Mapping[str, float], *, step: int, at_ms: int) -> None:
        """What an evaluation gave."""
        writer = self._writer(name)
        for metric, value in values.items():
            writer.add_scalar(metric, value, step, walltime=at_ms / 1000)

    def ended(self, name: SeatName) -> None:
        """Nothing more comes of this trial."""
        if name in self._writers:
            self._writers.pop(name).close()

    def close(self) -> None:
        """Of all trials."""
        for name in list(self._writers):
            self.ended(name)

    def _writer(self, name: SeatName) -> Any:
        if name not in self._writers:
            # Comes with ray[tune]; imported here, since few ask for it.
            from tensorboardX import SummaryWriter

            # A file of its own for each start of a driver, on disk within a second: it is looked at while trials train.
            self._writers[name] = SummaryWriter(
                str(self._root / name.study / str(name.number)), filename_suffix=f".{uuid4().hex[:8]}", flush_secs=1
            )
        return self._writers[name]
