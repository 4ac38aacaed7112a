"""A registered adapter as files of the user's own: PEFT's folder, or one model with the adapter merged in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunery.errors import ConflictError, TuneryError
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.inference.generator import Generator
from tunery.inference.loading import SIDE, load_in_transformers, quiet, usable_device
from tunery.inference.predictor import Input, Predictor
from tunery.inference.running import InTransformers, Logits
from tunery.inference.source import Source, locate

_TEXTS = (
    "The committee has published its report.",
    "She gave him a present on his birthday.",
    "Nobody knows why the lights went out.",
    "No.",
    "It rained all day, and by the evening the river had risen by more than two metres at the old bridge.",
)
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Exported:
    """What was written."""

    model: str
    folder: Path
    merged: bool
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What a user should know of what was exported."""
    samples: int = 0
    """Texts on which the merged model, read back, was compared with the adapter."""
    max_difference: float | None = None
    """Largest difference of a logit from the adapter's on the same base; None where nothing was merged."""
    max_difference_quantised: float | None = None
    """The same from the adapter's on the 4-bit base it was trained on; None where it was trained on the base itself.

    That is the price of merging: the adapter has learned to make up for the base's rounding, which is gone.
    """


def export(
    model: str | Path,
    to: Path,
    *,
    merge: bool = False,
    home: Home | None = None,
    device: str | None = None,
    profile: str | None = None,
) -> Exported:
    """Write the model's folder to `to`, whole or not at all.

    ConflictError where something is there already; TuneryError where the merged model does not say what the adapter
    says; else as `locate` and `load`.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConflictError(f"{to} is there already and not an empty folder: nothing was written")
    device = usable_device(device)
    source = locate(model, home=home, profile=profile)
    if merge and source.card.merged:
        raise ConflictError(f"{source.name} is merged already")
    if merge and (source.folder / SIDE).is_file():
        raise ConflictError(f"{source.name} is a network beside its base, whose weights it leaves alone: none to merge")
    to.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
    try:
        if merge:
            facts = _merge(source, scratch, device)
        else:
            shutil.copytree(source.folder, scratch, dirs_exist_ok=True)
            facts = {}
        scratch.chmod(0o755)  # mkdtemp's own is for the owner only
        scratch.rename(to)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files = tuple(sorted(path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file()))
    return Exported(source.name, to, merge, files, source.notes, **facts)


def _merge(source: Source, folder: Path, device: str) -> dict[str, Any]:
    card, samples = source.card, _samples(source.card)
    loaded = load_in_transformers(source.folder, card, device=device, quantised=False)
    adapter = _logits(loaded, source, samples)
    merged: Any = loaded.model
    merged = merged.merge_and_unload(safe_merge=True)
    with quiet():
        merged.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    own = card.model_copy(update={"merged": True})
    own.write(folder)
    back = _logits(load_in_transformers(folder, own, device=device), source, samples)
    facts: dict[str, Any] = {"samples": len(samples), "max_difference": _largest(back - adapter)}
    allowed = _TOLERANCE["float32" if loaded.model.dtype.itemsize == 4 else "bfloat16"] * max(1.0, _largest(adapter))
    if not facts["max_difference"] <= allowed:
        raise TuneryError(
            f"the merged model's logits differ by {facts['max_difference']:.2g} from the adapter's, more than "
            f"{allowed:.2g}: nothing was written"
        )
    if card.base.quantisation != "none":
        trained = _logits(load_in_transformers(source.folder, card, device=device), source, samples)
        facts["max_difference_quantised"] = _largest(back - trained)
    return facts


def _logits(loaded: InTransformers, source: Source, samples: Sequence[Input]) -> Logits:
    if source.card.asking is not None:
        prompts = Generator(loaded, source.card, name=source.name).prompts([text for text, _ in samples])
        return loaded.next_words(prompts)
    return Predictor(loaded, source.card, name=source.name).logits(samples)


def _samples(card: AdapterCard) -> list[Input]:
    """Texts of the task's kind."""
    task = card.definition
    if task is None:
        return [(text, None) for text in _TEXTS]
    examples = [(example.text, example.text_pair) for example in task.examples]
    if task.text_pair is None:
        return [*examples, *((text, None) for text in _TEXTS)]
    return [*examples, *((text, other) for text, other in zip(_TEXTS, reversed(_TEXTS), strict=True))]


def _largest(values: Logits) -> float:
    return float(np.abs(values).max())
