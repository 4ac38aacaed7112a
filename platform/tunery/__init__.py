"""Declarative tuning of language models on Ray: from a YAML spec to a promoted adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunery.inference.generator import Generator
    from tunery.inference.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Generator", "Predictor", "__version__"]


def __getattr__(name: str) -> object:
    # These need torch, which the client half must not load.
    if name == "Generator":
        from tunery.inference.generator import Generator

        return Generator
    if name == "Predictor":
        from tunery.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
