"""The methods' configurations on a machine without pydantic: a GPU's image often holds torch and little else.

They are classes with defaults; pydantic checks what a user writes, and nobody writes any here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Collection
from types import ModuleType
from typing import Any

_CONFIGURATIONS = ("tuners.config", "tuners.lora.config", "tuners.qlora.config")


class _Model:
    """Fields with defaults, given by name."""

    def __init__(self, **values: Any) -> None:
        fields = _fields(type(self))
        if unknown := sorted(set(values) - fields):
            raise TypeError(f"{type(self).__name__} has no fields {unknown}; known: {', '.join(sorted(fields))}")
        self.__dict__.update(values)

    def model_dump_json(self, *, exclude: Collection[str] = ()) -> str:
        """Every field but these, as pydantic gives them: the engine tells kinds of seats apart by it."""
        return json.dumps({name: getattr(self, name) for name in sorted(_fields(type(self)) - set(exclude))})


def load_configurations() -> bool:
    """Import `tuners`' configurations; whether with the real pydantic."""
    if importlib.util.find_spec("pydantic") is not None:
        return True
    stand_in: Any = ModuleType("pydantic")
    stand_in.BaseModel, stand_in.ConfigDict, stand_in.Field = _Model, dict, _default
    stand_in.AfterValidator = lambda check: check  # it is in annotations only, which nobody evaluates here
    missing = sys.modules.get("pydantic", stand_in)
    sys.modules["pydantic"] = stand_in
    try:
        for name in _CONFIGURATIONS:
            importlib.import_module(name)
    finally:
        # Other libraries look whether there is one, and would want more of it.
        del sys.modules["pydantic"]
        if missing is not stand_in:
            sys.modules["pydantic"] = missing
    return False


def _fields(cls: type) -> set[str]:
    annotations = (pair for base in cls.__mro__ for pair in inspect.get_annotations(base).items())
    return {name for name, kind in annotations if not str(kind).startswith("ClassVar")}


def _default(default: Any = None, **_limits: Any) -> Any:
    return default
