"""A seat's state: everything to go on elsewhere, as bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save, save_file
from torch import Tensor

from tuners.errors import ExportError, SeatError

VERSION = 1


@dataclass
class SeatState:
    """Tensors (theta [P] and AdamW's moments, as `Row` has them) and what else counts: steps done, patience, the names
    of the parts.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    """JSON."""

    @property
    def moments(self) -> dict[str, Tensor]:
        """AdamW's; none in a state that has been begun anew."""
        return {name: values for name, values in self.tensors.items() if name != "theta"}

    def to_bytes(self) -> bytes:
        """safetensors, with `meta` in its header."""
        data: bytes = save(self.tensors, metadata=self._header())
        return data

    def save(self, file: Path) -> None:
        """The same into a file, without a second copy in memory. Raises ExportError where it cannot be written."""
        try:
            save_file(self.tensors, file, metadata=self._header())
        except (OSError, SafetensorError) as error:
            raise ExportError(f"cannot write a seat's state to {file}: {error}") from error

    def copied(self) -> SeatState:
        """What stays as it is when the seat goes on."""
        return SeatState({name: values.clone() for name, values in self.tensors.items()}, self.meta)

    def _header(self) -> dict[str, str]:
        return {"seat": json.dumps(self.meta, sort_keys=True)}

    def begun_anew(self) -> SeatState:
        """Its weights in a seat that has made no step: without AdamW's moments."""
        none = dict.fromkeys(("step", "evaluated_at", "zero_steps", "constant_steps"), 0)
        return SeatState({"theta": self.tensors["theta"]}, self.meta | none)

    @classmethod
    def from_bytes(cls, data: bytes) -> SeatState:
        """Raises SeatError for bytes that are not a state, or one of a version not known here."""
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            meta = json.loads(header["__metadata__"]["seat"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise SeatError(f"these {len(data)} bytes are not a seat's state: {error}") from error
        if meta.get("version") != VERSION:
            raise SeatError(f"a seat's state of version {meta.get('version')}; known: {VERSION}")
        return cls(tensors, meta)
