"""How a model is tuned: a folder a method, and the engine that trains many seats on one frozen base.

Light: this module and every `config.py` load no torch. What trains lies in `tuners.engine` and `<method>/layer.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from pathlib import Path

from tuners.config import TrainConfig, TunerConfig
from tuners.errors import ExportError, SeatError, TunerError

__all__ = ["ExportError", "SeatError", "TrainConfig", "TunerConfig", "TunerError", "config_class", "names"]


def names() -> tuple[str, ...]:
    """The methods: the folders here that have a `config.py`. Imports none of them."""
    # Looking for a spec would import the folder, and the engine's loads torch.
    modules = ((root, module.name) for root in __path__ for module in pkgutil.iter_modules([root]))
    return tuple(sorted(name for root, name in modules if Path(root, name, "config.py").is_file()))


def config_class(name: str) -> type[TunerConfig]:
    """The configuration of a method.

    Raises TunerError for a name that is none, naming those that are.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise TunerError(f"unknown tuning method {name!r}{hint} known: {', '.join(names())}")
    found: type[TunerConfig] = importlib.import_module(f"tuners.{name}.config").Config
    assert issubclass(found, TunerConfig)
    return found
