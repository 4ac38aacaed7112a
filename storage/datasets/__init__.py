"""Labelled texts from a folder, from the hub, or from rows the caller has; checked, sampled and fingerprinted."""

from __future__ import annotations

from storage.datasets.hub import read_hub
from storage.datasets.path import read_path
from storage.datasets.rows import BadRows, Fields, Row, Rows, data_fingerprint, from_rows, same

__all__ = [
    "BadRows",
    "Fields",
    "Row",
    "Rows",
    "data_fingerprint",
    "from_rows",
    "read_hub",
    "read_path",
    "same",
]
