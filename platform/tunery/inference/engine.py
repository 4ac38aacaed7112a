"""From what a model's card says to what the engine reads it with."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

import tuners
from storage.fetching import base_folder
from tuners.config import TunerConfig
from tuners.engine import Base, BaseSpec, HeadSpec, Reader, native_dtype
from tuners.errors import TunerError
from tunery.errors import InputError
from tunery.inference.card import AdapterCard


def base_of(folder: Path, card: AdapterCard, *, device: str) -> BaseSpec:
    """What a model is computed on. Those with the same one, `language` left out, can be asked together.

    Raises what `base_folder` does, and InputError where the card does not say how the model was trained.
    """
    tuner = tuner_of(folder, card)
    dtype = native_dtype(torch.device(device)) if card.base.dtype == "auto" else card.base.dtype
    return BaseSpec(
        str(folder) if tuner is None else base_folder(card.base.id, card.base.revision, card.base.source),
        quantisation="none" if tuner is None else card.base.quantisation,
        dequantised_once=tuner is not None and tuner.dequantised_once,
        language=card.kind == "generation",
        beside=tuner is not None and tuner.trains_beside,
        # What users ask seldom comes twice: none of its states are kept.
        dtype=dtype,
    )


def tuner_of(folder: Path, card: AdapterCard) -> TunerConfig | None:
    """What was trained; None of a whole model. InputError where the card does not say."""
    if card.merged:
        return None
    if not card.tuner:
        raise InputError(f"the card in {folder} does not say how the model was trained: an older tunery wrote it")
    try:
        return tuners.config_class(card.method).model_validate(dict(card.tuner), strict=False)
    except (TunerError, ValidationError) as error:
        raise InputError(f"the card in {folder} says what cannot be: {error}") from error


def load_base(spec: BaseSpec, device: str) -> Base:
    """InputError where it cannot be loaded."""
    try:
        return Base.load(spec, device)
    except TunerError as error:
        raise InputError(str(error)) from error


def read(reader: Reader, name: str, folder: Path, card: AdapterCard, *, stop: tuple[int, ...]) -> None:
    """Give a model a place. InputError where its folder is not what its card says."""
    try:
        reader.add(name, tuner_of(folder, card), HeadSpec(card.kind, card.labels, stop), folder)
    except TunerError as error:
        raise InputError(f"{folder} cannot be read: {error}") from error
