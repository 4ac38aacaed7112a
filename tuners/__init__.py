"""How a model is tuned. A folder with a `config.py` is a method; the rest of it is torch and imported on use.

This module, `tuners.config`, `tuners.errors` and the methods' `config` modules are light: the client imports them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from tuners.config import TunerConfig
from tuners.errors import TunerError

__all__ = ["config_class", "names"]


@cache
def names() -> tuple[str, ...]:
    """The methods, by their folders' names, without importing them."""
    folder = Path(__file__).parent
    found = (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return tuple(sorted(name for name in found if (folder / name / "config.py").is_file()))


def config_class(name: str) -> type[TunerConfig]:
    """A method's configuration class. Imports its `config` module only. TunerError where there is no such method."""
    if name not in names():
        raise TunerError(f"unknown tuning method {name!r}; known: {', '.join(names())}")
    found: type[TunerConfig] = importlib.import_module(f"tuners.{name}.config").Config
    return found
