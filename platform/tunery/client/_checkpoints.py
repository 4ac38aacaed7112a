"""A checkpoint by the name that a user gives it: RUN[/STUDY]/TRIAL[@STEP], or its folder."""

from __future__ import annotations

import re
from pathlib import Path

from storage.checkpoints import Checkpoint, CheckpointStore
from storage.errors import ChecksumError, StorageError, StoreRefusedError, StoreUnreachableError
from storage.models import is_folder
from storage.stores import open_store
from tunery.begin import Found
from tunery.errors import InputError, NotFoundError
from tunery.runs import RunFolder, find_run

_REFERENCE = re.compile(r"(?:(?P<run>[^/@]+)/)?(?:(?P<study>[^/@]+)/)?(?P<trial>\d+)(?:@(?P<step>\d+))?")
_FORM = "expected RUN[/STUDY]/TRIAL[@STEP], or a checkpoint's folder beginning with / or ./"


def find_checkpoint(text: str, runs: Path, *, of: str = "") -> Found:
    """The checkpoint of that name, every file of it checked; without a step the newest good one.

    `of`: the run whose trials may be named without it. NotFoundError where there is none, naming those that are;
    InputError for a name that is none and for a damaged checkpoint, naming a good one.
    """
    if is_folder(text):
        return _in_folder(text, Path(text).expanduser().resolve(), runs.resolve())
    run, study, trial, step = _parsed(text, runs, of)
    folder = RunFolder(runs / run) if run == of else find_run(runs, run)
    study = _study(folder, study, text)
    numbers = sorted(int(name) for name in _names(folder, study) if name.isdigit())
    if trial not in numbers:
        known = ", ".join(map(str, numbers)) or "none"
        raise NotFoundError(
            f"no checkpoint of trial {trial} in study {study} of run {folder.run_id}; trials that have some: {known}"
        )
    named = f"{folder.run_id}/{study}/{trial}"
    checkpoint, passed_over = _read(CheckpointStore(folder.checkpoints(study, trial)), named, step)
    return Found(f"{named}@{checkpoint.step}", checkpoint, folder.run_id, study, trial, passed_over)


def copy_in(folder: RunFolder, name: str) -> Found:
    """A run's own copy of the checkpoint that its trials began with, whose name this is."""
    copies = CheckpointStore(folder.begin)
    copy = copies.newest()
    if copy is None:
        lost = f"run {folder.run_id} has lost what it began with, checkpoint {name}"
        raise NotFoundError("; ".join([lost, *copies.problems]))
    return Found(name, copy)


def _parsed(text: str, runs: Path, of: str) -> tuple[str, str | None, int, int | None]:
    match = _REFERENCE.fullmatch(text)
    if match is None:
        there = " (there is a folder of that name: begin it with ./)" if text and Path(text).is_dir() else ""
        raise InputError(f"{text!r} names no checkpoint{there}; {_FORM}")
    run, study = match["run"], match["study"]
    if of and study is None and (run is None or run in _names(RunFolder(runs / of))):
        run, study = of, run
    if run is None:
        raise InputError(f"{text!r} names a trial and no run; {_FORM}")
    return run, study, int(match["trial"]), int(match["step"]) if match["step"] else None


def _study(folder: RunFolder, study: str | None, text: str) -> str:
    there = _names(folder)
    if not there:
        raise NotFoundError(f"run {folder.run_id} has no checkpoints")
    if study is None and len(there) > 1:
        raise InputError(
            f"{text!r} may be of any study of run {folder.run_id}: name one, as in {folder.run_id}/{there[0]}/0; "
            f"there are: {', '.join(there)}"
        )
    found = study or there[0]
    if found not in there:
        raise NotFoundError(f"run {folder.run_id} has no checkpoints of a study {found!r}; known: {', '.join(there)}")
    return found


def _names(folder: RunFolder, *study: str) -> list[str]:
    """The studies that have checkpoints, or a study's trials."""
    place = folder.store / "checkpoints"
    for name in study:
        place = place / name
    return list(open_store(place).children())


def _read(store: CheckpointStore, named: str, step: int | None) -> tuple[Checkpoint, tuple[str, ...]]:
    try:
        if step is not None:
            return store.at(step), ()
        found = store.newest()
    except ChecksumError as error:
        raise InputError(f"checkpoint {named}@{step} is damaged: {error}") from error
    except (StoreUnreachableError, StoreRefusedError):
        raise  # which says nothing of whether there is one
    except StorageError as error:
        raise NotFoundError(f"no checkpoint {named}@{step}: {error}") from error
    if found is None:
        raise NotFoundError("; ".join([f"trial {named} has no good checkpoint", *store.problems]))
    return found, tuple(store.problems)


def _in_folder(text: str, folder: Path, runs: Path) -> Found:
    if not (folder / "manifest.json").exists():
        inner = sorted(each.parent.name for each in folder.glob("*/manifest.json")) if folder.is_dir() else []
        hint = f"; it holds: {', '.join(inner)}" if inner else ""
        raise NotFoundError(f"{text} is no checkpoint's folder: it has no manifest.json{hint}")
    try:
        checkpoint = Checkpoint.open(folder)
    except ChecksumError as error:
        good = CheckpointStore(folder.parent).newest()
        hint = f"the newest good one beside it: {good.where}" if good is not None else "there is no good one beside it"
        raise InputError(f"checkpoint {text} is damaged: {error}; {hint}") from error
    # RUNS/RUN/checkpoints/STUDY/TRIAL/<checkpoint>
    match folder.relative_to(runs).parts if folder.is_relative_to(runs) else ():
        case (run, "checkpoints", study, number, _) if number.isdigit():
            return Found(f"{run}/{study}/{number}@{checkpoint.step}", checkpoint, run, study, int(number))
    return Found(str(folder), checkpoint)
