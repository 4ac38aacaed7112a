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

from tunery.errors import InputError, NotFoundError
from tunery.tasks.task import EvalSplit, Example, HubRef, Task, Value

__all__ = ["EvalSplit", "Example", "HubRef", "Task", "Value", "generate", "get", "names"]

_NO_CATALOGUE = {"custom", "metrics", "prompting", "task", "written"}


@cache
def _catalogue() -> dict[str, Task]:
    return {name: task for name, (task, _) in _entries().items()}


@cache
def _entries() -> dict[str, tuple[Task, str]]:
    tasks: dict[str, tuple[Task, str]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name in _NO_CATALOGUE:
            continue
        path = f"{__name__}.{module.name}"
        entries: tuple[Task, ...] = importlib.import_module(path).TASKS
        for task in entries:
            assert task.name not in tasks, f"two tasks are called {task.name!r}"
            tasks[task.name] = (task, path)
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


def generate(name: str, split: str, *, seed: int) -> list[tuple[str, str | None, float]]:
    """The text, second text and label of each row of a task whose data the project makes itself (`task.generate`).

    They come from the function `rows` of the task's module. InputError for a task that has no such data.
    """
    task = get(name)
    if not task.generate:
        embedded = ", ".join(other for other in names() if get(other).generate)
        raise InputError(f"task {name!r} has no embedded data: set data.source to hub or path; embedded: {embedded}")
    assert split in task.rows, f"{name} has no split {split!r}"
    rows: list[tuple[str, int]] = importlib.import_module(_entries()[name][1]).rows(split, seed=seed)
    return [(text, None, float(label)) for text, label in rows]
