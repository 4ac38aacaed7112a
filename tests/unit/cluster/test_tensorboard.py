"""Event files, read back record by record as TensorBoard does."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from tunery.cluster.messages import SeatName
from tunery.cluster.tracking import EventFiles

FIRST, SECOND = SeatName("cola", 0), SeatName("cola", 1)


def events(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("events.*")):
        data, place = file.read_bytes(), 0
        while place + 12 < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            if place + 12 + size + 4 > len(data):
                return  # still being written
            yield Event.FromString(data[place + 12 : place + 12 + size])
            place += 12 + size + 4


def scalars(folder: Path) -> list[tuple[str, int, float, float]]:
    return [
        (value.tag, event.step, round(value.simple_value, 6), event.wall_time)
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def test_each_trial_has_its_own_and_can_be_read_while_it_trains(tmp_path: Path) -> None:
    files = EventFiles(tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
    files.started(FIRST, {"train.learning_rate": 0.001, "tuner.rank": 8})
    files.metrics(FIRST, {"mcc": 0.5, "loss": 0.7}, step=10, at_ms=1_000_500)
    deadline = time.monotonic() + 30
    while len(found := scalars(tmp_path / "tb/cola/0")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found == [("mcc", 10, 0.5, 1000.5), ("loss", 10, 0.7, 1000.5)]
    files.started(SECOND, {})
    files.metrics(SECOND, {"mcc": 0.1}, step=3, at_ms=2000)
    files.ended(FIRST)
    files.close()
    assert scalars(tmp_path / "tb/cola/1") == [("mcc", 3, 0.1, 2.0)]
    values = [value for event in events(tmp_path / "tb/cola/0") for value in event.summary.value]
    texts = [text for value in values for text in value.tensor.string_val]
    assert b"| train.learning_rate | 0.001 |" in texts[0]


def test_a_driver_that_starts_again_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    for step in (1, 2):
        files = EventFiles(tmp_path)
        files.metrics(FIRST, {"mcc": step / 10}, step=step, at_ms=step * 1000)
        files.close()
    assert sorted((tag, step) for tag, step, _, _ in scalars(tmp_path / "cola/0")) == [("mcc", 1), ("mcc", 2)]
