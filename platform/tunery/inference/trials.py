"""A run's trial as a model: `RUN/STUDY/TRIAL`, or `RUN/TRIAL` where the run has one study.

Its best checkpoint is read with the hashes checked, and kept as an adapter folder under the home's cache.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.checkpoints import Checkpoint, CheckpointStore
from storage.errors import ChecksumError
from storage.fetching import base_folder
from tunery.errors import ConflictError, InputError, NotFoundError
from tunery.fetching import at_its_commit
from tunery.home import Home
from tunery.inference.card import Score
from tunery.inference.trained import adapter_files, card_of, write_folder
from tunery.plan import Plan, Study
from tunery.runs import RunFolder, StudyState, TrialState, find_run, named_run
from tunery.tasks.prompting import Form, Prompting


@dataclass(frozen=True)
class Named:
    """A trial as a user calls it, in a run that is there."""

    run: RunFolder
    study: str | None
    """None: the run's only one."""
    number: str
    by_run_name: bool
    """Whether it reads `NAME/NUMBER`, which may be a version of a registered model too."""


@dataclass(frozen=True)
class Kept:
    """The files of a trial's best adapter."""

    name: str
    folder: Path
    notes: tuple[str, ...]
    """Checkpoints that were passed over because they are damaged, in words."""


def named(text: str, runs: Path) -> Named | None:
    """The trial that a name means; None where it means none. NotFoundError for `RUN/STUDY/TRIAL` without the run."""
    match text.split("/"):
        case [run, study, number] if run and study and number:
            return Named(find_run(runs, run), study, number, by_run_name=False)
        case [name, number] if (found := named_run(runs, name)) is not None:
            return Named(found, None, number, by_run_name=name == found.name)
        case _:
            return None


def keep(wanted: Named, home: Home) -> Kept:
    """Copy the trial's best adapter into the home's cache, once a checkpoint.

    NotFoundError where there is no such study, trial or checkpoint yet; InputError where the study has to be named,
    and where no checkpoint can be read.
    """
    run = wanted.run
    state = run.current(name=run.name)
    study = _study(wanted, state.studies, run.run_id)
    trial = _trial(wanted, study, run.run_id)
    name = f"{run.run_id}/{study.name}/{trial.number}"
    best, files, notes = _best(run, study, trial, name)
    kept = home.cache / "adapters" / run.run_id / f"{study.name}-{trial.number}-{best.name}"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: two at once, or a kill, leave no half of it.
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=f".{os.getpid()}-") as scratch:
            folder = _written(Path(scratch), _planned(run, study.name), study, trial, run.run_id, best, files)
            try:
                folder.rename(kept)
            except OSError:
                if not kept.is_dir():  # another process was not quicker either
                    raise
    return Kept(name, kept, notes)


def _study(wanted: Named, studies: Sequence[StudyState], run_id: str) -> StudyState:
    known = {study.name: study for study in studies}
    if not known:
        raise NotFoundError(f"run {run_id} has no trials yet")
    if wanted.study is None:
        if not wanted.number.isdigit() and wanted.number in known:
            form = f"{run_id}/{wanted.number}/TRIAL"
            raise InputError(f"which trial of it? Say {form}; there are: {_evaluated(known[wanted.number])}")
        if len(known) > 1:
            form = f"{run_id}/STUDY/{wanted.number}"
            raise InputError(f"run {run_id} has {len(known)} studies: say which, as {form}; known: {', '.join(known)}")
        return next(iter(known.values()))
    if wanted.study not in known:
        close = get_close_matches(wanted.study, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise NotFoundError(f"run {run_id} has no study {wanted.study!r}{hint} known: {', '.join(known)}")
    return known[wanted.study]


def _trial(wanted: Named, study: StudyState, run_id: str) -> TrialState:
    # isascii: isdigit alone takes figures that int does not.
    number = int(wanted.number) if wanted.number.isdigit() and wanted.number.isascii() else None
    found = next((trial for trial in study.trials if trial.number == number), None)
    if found is None:
        raise NotFoundError(
            f"study {study.name} of run {run_id} has no trial {wanted.number}; with a checkpoint: {_evaluated(study)}"
        )
    return found


def _evaluated(study: StudyState) -> str:
    """The trials that can be asked: an evaluation writes a checkpoint."""
    numbers = [
        f"{trial.number}{' (the best)' if trial.number == study.best else ''}"
        for trial in study.trials
        if trial.objective is not None
    ]
    return ", ".join(numbers) or "none yet"


def _best(
    run: RunFolder, study: StudyState, trial: TrialState, name: str
) -> tuple[Checkpoint, dict[str, bytes], tuple[str, ...]]:
    """The best checkpoint that is whole, its adapter's files, and what was passed over on the way to it."""
    store = CheckpointStore(run.checkpoints(study.name, trial.number))
    best, problems = store.best(), store.problems
    if best is not None:
        try:
            return best, adapter_files(best), tuple(f"{problem}: passed over" for problem in problems)
        except ChecksumError as error:
            problems = [*problems, str(error)]
    if problems:
        raise InputError(f"trial {name} has no adapter that can be read: {'; '.join(problems)}")
    at = f", step {trial.step} of {trial.steps}" if trial.steps else ""
    why = f": {trial.error}" if trial.error else ""
    raise NotFoundError(
        f"trial {name} has no checkpoint: it is {trial.status}{at}{why}; its first evaluation writes one; "
        f"trials of {study.name} with one: {_evaluated(study)}"
    )


def _planned(run: RunFolder, study: str) -> Study:
    try:
        plan = Plan.model_validate_json(run.plan_file.read_bytes())
    except ValidationError as error:
        raise ConflictError(f"{run.plan_file} was written by another version of tunery: {error}") from error
    found = next((each for each in plan.studies if each.name == study), None)
    if found is None:
        raise ConflictError(f"{run.plan_file} has no study {study!r}, which its state has")
    return at_its_commit(found, run.models_file)


def _written(
    scratch: Path,
    study: Study,
    state: StudyState,
    trial: TrialState,
    run_id: str,
    best: Checkpoint,
    files: dict[str, bytes],
) -> Path:
    # Here, as in `storage.registry`: seconds to load, and not needed to say that there is no such trial.
    from transformers import AutoTokenizer

    task, model = study.definition, study.model
    try:
        base = base_folder(model.id, model.revision, model.source)
        tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise NotFoundError(f"the tokenizer of the base model {model.id!r} cannot be loaded: {error}") from error
    tokenizer.save_pretrained(scratch / "tokenizer")
    form: Form | None = None
    if task.kind == "generation":
        form = Prompting.of(tokenizer, task.template, form=study.data.template).form
    score = Score(task.objective_name, best.metrics["objective"], state.data_fingerprint)
    metrics = {name: value for name, value in best.metrics.items() if name in (*task.metrics, "loss")}
    card = card_of(run_id, study, state, trial, score=score, metrics=metrics, form=form)
    write_folder(scratch / "adapter", files, scratch / "tokenizer", card)
    return scratch / "adapter"
