"""What MLflow takes in one request, and how many a record is."""

from __future__ import annotations

from collections import Counter

from tunery.cluster.tracking.spool import Key, Record

METRICS_A_REQUEST = 1000
PARAMS_A_REQUEST = 100
_OPENING = 3
"""Of a run that is looked for, created and given its parameters; the other kinds of record are about as many."""


def requests(record: Record, together: Counter[Key]) -> int:
    """That a record adds to those before it; `together`: metrics of each trial that go in one request so far."""
    key: Key = (record["study"], record["number"])
    if record["kind"] != "metrics":
        del together[key]
        return _OPENING
    before = together[key]
    together[key] += len(record["values"])
    return -(-together[key] // METRICS_A_REQUEST) + (-before // METRICS_A_REQUEST)
