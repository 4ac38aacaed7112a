"""A seat as a PEFT adapter, which loads without this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tuners.engine.base import Base
from tuners.engine.seat import Seat
from tuners.errors import ExportError

_ROOT = "base_model.model"
"""Where PEFT keeps the model that it wraps."""


def write(seat: Seat, base: Base, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors; the head is in modules_to_save.

    Raises ExportError if the files cannot be written or do not read back as they were.
    """
    tensors = _tensors(seat, base)
    config = _config(seat, base)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        back = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write the adapter of seat {seat.spec.name!r} to {folder}: {error}") from error
    if back.keys() != tensors.keys() or not all(_same(back[name], tensors[name]) for name in tensors):
        raise ExportError(f"the adapter of seat {seat.spec.name!r} does not read back from {folder} as it was written")


def _tensors(seat: Seat, base: Base) -> dict[str, Tensor]:
    theta = seat.row.views(seat.row.theta)
    found = seat.adapter.peft_tensors(theta, f"{_ROOT}.{base.family.prefix}")
    found |= {f"{_ROOT}.{name}": values for name, values in seat.head.tensors().items()}
    return {name: values.cpu().contiguous().clone() for name, values in found.items()}


def _config(seat: Seat, base: Base) -> dict[str, Any]:
    return seat.adapter.peft_config() | {
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": base.spec.folder,
        "revision": base.spec.revision,
        "modules_to_save": list(seat.head.saved),
        "inference_mode": True,
    }


def _same(a: Tensor, b: Tensor) -> bool:
    # Bits, so that a NaN equals itself.
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
