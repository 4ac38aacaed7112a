"""The files of a seat's checkpoint, and its reports as one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from tunery.cluster.messages import Report

STATE = "seat.safetensors"
"""The engine's state of the seat."""
REPORTS = "reports.json"
"""Every report of the seat so far. The best checkpoint holds the files of the PEFT adapter too."""


def write_reports(reports: Sequence[Report]) -> bytes:
    return json.dumps([asdict(report) for report in reports]).encode()


def read_reports(content: bytes) -> list[Report]:
    return [Report(**report) for report in json.loads(content)]
