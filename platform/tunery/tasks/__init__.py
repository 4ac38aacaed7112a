"""The catalogue of tasks.

A module or package in this folder that has a `TASKS` adds its tasks; nothing else has to be touched. Importing the
catalogue loads no numpy, pyarrow or scikit-learn: the client reads it. The numbers are computed by
`tunery.tasks.metrics`, which only the cluster and the inference import.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from functools import cache

from tunery.errors import NotFoundError
from tunery.tasks.task import EvalSplit, HubRef, Sample, Task, Value

__all__ = ["EvalSplit", "HubRef", "Sample", "Task", "Value", "get", "names"]

_NO_CATALOGUE = {"task", "metrics"}


@cache
def _catalogue() -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name in _NO_CATALOGUE:
            continue
        entries: tuple[Task, ...] = importlib.import_module(f"{__name__}.{module.name}").TASKS
        for task in entries:
            assert task.name not in tasks, f"two tasks are called {task.name!r}"
            tasks[task.name] = task
    return tasks


def names() -> tuple[str, ...]:
    """The known tasks, sorted by name."""
    return tuple(sorted(_catalogue()))


def get(name: str) -> Task:
    """The task of that name. NotFoundError, with a suggestion, where there is none."""
    try:
        return _catalogue()[name]
    except KeyError:
        close = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise NotFoundError(f"unknown task {name!r}{hint} known: {', '.join(names())}") from None
