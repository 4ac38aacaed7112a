"""A seat as a PEFT adapter, or as a whole model: either loads without this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from tuners.engine.base import Base
from tuners.engine.method import Form
from tuners.engine.seat import Seat
from tuners.errors import ExportError

ROOT = "base_model.model"
"""Where PEFT keeps the model that it wraps."""


def write(seat: Seat, base: Base, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, the head in modules_to_save; of a seat that trains the base,
    config.json and model.safetensors; of one that trains beside it, side_config.json and side_model.safetensors.

    Raises ExportError if the files cannot be written or do not read back as they were.
    """
    form, own = seat.adapter.form, seat.adapter.export_config()
    tensors = _tensors(seat, base, root=f"{ROOT}." if form == "adapter" else "")
    config = _whole(seat, base) if form == "model" else own | _common(seat, base, own)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        weights, described = (folder / name for name in names_of(form))
        save_file(tensors, weights, metadata={"format": "pt"})
        described.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        back = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"cannot write the adapter of seat {seat.spec.name!r} to {folder}: {error}") from error
    if back.keys() != tensors.keys() or not all(_same(back[name], tensors[name]) for name in tensors):
        raise ExportError(f"the adapter of seat {seat.spec.name!r} does not read back from {folder} as it was written")


def names_of(form: Form) -> tuple[str, str]:
    """The files of an export: its weights, and what describes them."""
    stem = "" if form == "model" else f"{form}_"
    return f"{stem}model.safetensors", f"{stem}config.json"


def _tensors(seat: Seat, base: Base, *, root: str) -> dict[str, Tensor]:
    theta = seat.row.views(seat.row.theta)
    found = seat.adapter.tensors(theta, f"{root}{base.family.prefix}")
    found |= {f"{root}{name}": values for name, values in seat.head.tensors().items()}
    return {name: values.cpu().contiguous().clone() for name, values in found.items()}


def _whole(seat: Seat, base: Base) -> dict[str, Any]:
    """The base's own configuration, with the head."""
    head, model_type = seat.head.spec, base.config.model_type
    own: dict[str, Any] = base.config.to_diff_dict() | {"dtype": str(seat.row.theta.dtype).removeprefix("torch.")}
    if head.kind == "generation":
        return own | {"architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]]}
    labels = head.labels or ("value",)
    return own | {
        "architectures": [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES[model_type]],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "regression" if head.kind == "regression" else "single_label_classification",
    }


def _common(seat: Seat, base: Base, adapter: dict[str, Any]) -> dict[str, Any]:
    return {
        "task_type": "CAUSAL_LM" if seat.head.spec.kind == "generation" else "SEQ_CLS",
        "base_model_name_or_path": base.spec.published or base.spec.folder,
        "revision": base.spec.revision,
        "modules_to_save": [*seat.head.saved, *adapter.get("modules_to_save", ())] or None,
        "inference_mode": True,
    }


def _same(a: Tensor, b: Tensor) -> bool:
    # Bits, so that a NaN equals itself.
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
