"""A model of either kind, by its name: what gives labels or values, and what generates."""

from __future__ import annotations

from pathlib import Path

from tunery.home import Home
from tunery.inference.generator import Generator
from tunery.inference.loading import best_device, load
from tunery.inference.predictor import Predictor
from tunery.inference.source import locate

Model = Predictor | Generator


def open_model(
    model: str | Path, home: Home | None = None, device: str | None = None, *, profile: str | None = None
) -> Model:
    """Load `name@alias`, `name/3`, `name` (its champion) or an adapter's folder; raises what `Predictor.load` does."""
    device = device or best_device()
    source = locate(model, home=home, profile=profile)
    loaded = load(source.folder, source.card, device=device)
    kind: type[Model] = Predictor if source.card.asking is None else Generator
    return kind(loaded, source.card, name=source.name, device=device)
