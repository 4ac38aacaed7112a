"""A task's rows for an evaluation, from wherever they are."""

from __future__ import annotations

from pathlib import Path

from storage.datasets import Fields, Rows, from_rows, read_hub, read_path
from storage.errors import MissingSplitError
from tunery.errors import InputError
from tunery.tasks import Task, generate


def evaluation_rows(task: Task, root: Path | None, *, limit: int | None = None, seed: int = 0) -> dict[str, Rows]:
    """The rows of every evaluation split: files under `root`; without one generated, or from the hub.

    An optional split that is not there is left out. storage.errors.DataError for rows that cannot be used.
    """
    sets = {}
    for split in task.eval_splits:
        try:
            sets[split.name] = _read(task, split.name, root, limit, seed)
        except MissingSplitError:
            if not split.optional:
                raise
    return sets


def _read(task: Task, split: str, root: Path | None, limit: int | None, seed: int) -> Rows:
    fields = Fields(task.text, task.text_pair, task.label, task.labels)
    if root is not None:
        return read_path(root, task.folder, split, fields, limit=limit, seed=seed)
    if task.generate:
        rows = generate(task.name, split, seed=seed)
        return from_rows(rows, f"embedded:{task.name}/{split}", limit=limit, seed=seed)
    if task.hub is None:
        raise InputError(f"where are the rows of {task.name}? Name the folder that holds {task.folder}/ with --data")
    return read_hub(task.hub.repo, task.hub.config, split, fields, limit=limit, seed=seed)
