"""A model of either kind, by its name: what gives labels or values, and what generates."""

from __future__ import annotations

from pathlib import Path

from tunery.home import Home
from tunery.inference.generator import Generator
from tunery.inference.loading import load, usable_device
from tunery.inference.predictor import Predictor
from tunery.inference.source import Source, locate

Model = Predictor | Generator


def open_model(
    model: str | Path, home: Home | None = None, device: str | None = None, *, profile: str | None = None
) -> Model:
    """Load what `locate` finds by that name; raises what `Predictor.load` does."""
    return open_source(locate(model, home=home, profile=profile), device)


def open_source(source: Source, device: str | None = None) -> Model:
    """The same, of what was located before: a name may mean other files by now."""
    device = usable_device(device)
    running = load(source.folder, source.card, device=device)
    kind: type[Model] = Predictor if source.card.asking is None else Generator
    return kind(running, source.card, name=source.name)
