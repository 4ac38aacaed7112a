"""A task's rows, from wherever they are: for training, for an evaluation, and for what compares two models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

from storage.datasets import BadRows, Fields, Rows, from_rows, read_hub, read_path, same
from storage.errors import DataError, MissingSplitError
from tunery.errors import InputError
from tunery.tasks import Task, generate

_HELD_OUT_SEED = 0
"""The rows held out are the same whatever a spec says: scores of two sweeps are compared on them."""


@dataclass(frozen=True)
class Place:
    """Where rows are, and what to do with bad ones."""

    source: Literal["hub", "path", "embedded"]
    root: Path | None = None
    """Of a path."""
    seed: int = 0
    """Of generated rows, and of a sample."""
    bad_rows: BadRows = "fail"

    @classmethod
    def at(cls, root: Path | None, task: Task) -> Place:
        """Under `root`; without one generated, or on the hub. InputError where a task is neither.

        Bad rows are left out, for the caller to tell: a model may have been trained without them.
        """
        if root is not None:
            return cls("path", root, bad_rows="skip")
        if task.generate:
            return cls("embedded")
        if task.hub is None:
            raise InputError(
                f"where are the rows of {task.name}? Name the folder that holds {task.folder}/ with --data"
            )
        return cls("hub", bad_rows="skip")


@dataclass(frozen=True)
class Repeats:
    """Texts that occur more than once."""

    within: int
    """Training rows whose text an earlier one has."""
    shared: int
    """Training rows whose text is among the evaluation's."""
    dropped: bool
    """Whether they were left out."""


@dataclass(frozen=True)
class Sets:
    """The rows of a study."""

    train: Rows
    evals: Mapping[str, Rows]
    repeats: Repeats


def training_sets(task: Task, place: Place, *, max_train: int | None, max_eval: int | None, deduplicate: bool) -> Sets:
    """Training and evaluation rows. Repeats are counted, and left out of the training rows with `deduplicate`.

    storage.errors.DataError for rows that cannot be used.
    """
    evals, left = _read(task, place)
    train = left or _split(task, task.train_split, place)
    known = {same(row) for rows in evals.values() for row in rows.rows}
    if deduplicate:
        repeats = _repeats(train, known, dropped=True)
        train = _without_repeats(train, known)
    train = train.sampled(max_train, place.seed)
    if not deduplicate:
        repeats = _repeats(train, known, dropped=False)
    return Sets(train, {name: rows.sampled(max_eval, place.seed) for name, rows in evals.items()}, repeats)


def evaluation_sets(task: Task, place: Place, *, limit: int | None = None) -> dict[str, Rows]:
    """The rows of every evaluation split; an optional one that is not there is left out, and one that is held out of
    the training rows where it is not there is.

    storage.errors.DataError for rows that cannot be used.
    """
    evals, _ = _read(task, place)
    return {name: rows.sampled(limit, place.seed) for name, rows in evals.items()}


def skipped(sets: Mapping[str, Rows]) -> list[str]:
    """What to tell of bad rows that were left out."""
    return [
        f"{name}: {len(rows.skipped):,} bad rows are left out; the first one: {rows.skipped[0]}"
        for name, rows in sets.items()
        if rows.skipped
    ]


def _read(task: Task, place: Place) -> tuple[dict[str, Rows], Rows | None]:
    """The evaluation splits; and the training rows, where some were held out of them."""
    found: dict[str, Rows] = {}
    left: Rows | None = None
    for split in task.eval_splits:
        try:
            found[split.name] = _split(task, split.name, place)
        except MissingSplitError:
            if split.held_out:
                whole = left or _split(task, task.train_split, place)
                out = _held_out(whole, split.held_out)
                if not out:
                    raise DataError(
                        f"{whole.origin} has {len(whole.rows)} rows, of which none can be held out: "
                        f"give the task a split {split.name!r} of its own"
                    ) from None
                found[split.name] = replace(whole.chosen(out), origin=f"{whole.origin}:held out")
                left = whole.chosen(sorted(set(range(len(whole.rows))) - set(out)))
            elif not split.optional:
                raise
    return found, left


def _held_out(rows: Rows, count: int) -> list[int]:
    """Which rows: so many, a fifth of them at most, and of each text all or none."""
    texts = [same(row) for row in rows.rows]
    sizes, order = Counter(texts), list(range(len(texts)))
    Random(_HELD_OUT_SEED).shuffle(order)
    out: set[tuple[str, str]] = set()
    left = min(count, len(order) // 5)
    for text in (texts[index] for index in order):
        if text not in out and sizes[text] <= left:
            out.add(text)
            left -= sizes[text]
    return [index for index, text in enumerate(texts) if text in out]


def _repeats(train: Rows, known: set[tuple[str, str]], *, dropped: bool) -> Repeats:
    texts = [same(row) for row in train.rows]
    return Repeats(len(texts) - len(set(texts)), sum(text in known for text in texts), dropped)


def _without_repeats(train: Rows, known: set[tuple[str, str]]) -> Rows:
    """The first of each text that is not among `known`."""
    seen, kept = set(known), []
    for index, row in enumerate(train.rows):
        if same(row) not in seen:
            seen.add(same(row))
            kept.append(index)
    return train.chosen(kept)


def _split(task: Task, split: str, place: Place) -> Rows:
    fields = Fields(task.text, task.text_pair, task.label, task.labels, task.prompt)
    if place.source == "embedded":
        return from_rows(generate(task.name, split, seed=place.seed), f"embedded:{task.name}/{split}")
    if place.source == "path":
        assert place.root is not None
        return read_path(place.root, task.folder, split, fields, bad_rows=place.bad_rows)
    if task.hub is None:
        known = "embedded" if task.generate else "path"
        raise InputError(f"task {task.name} is not on the hub; set data.source: {known}")
    return read_hub(task.hub.repo, task.hub.config, split, fields, bad_rows=place.bad_rows)
