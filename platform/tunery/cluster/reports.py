"""A seat's reports as a file of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from tunery.cluster.messages import Report


def write_reports(reports: Sequence[Report]) -> bytes:
    return json.dumps([asdict(report) for report in reports]).encode()


def read_reports(content: bytes) -> list[Report]:
    return [Report(**report) for report in json.loads(content)]
