"""A trial's adapter as a folder that can be loaded: PEFT's files from its best checkpoint, the tokenizer, the card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from storage.checkpoints import Checkpoint
from storage.errors import ChecksumError
from tunery import __version__
from tunery.inference.card import AdapterCard, AskingCard, BaseModelCard, ObjectiveCard, Score, SeedsCard
from tunery.plan import Study
from tunery.runs import TRAINING_FILES, StudyState, TrialState
from tunery.standings import standing_of
from tunery.tasks.prompting import Form


def adapter_files(best: Checkpoint) -> dict[str, bytes]:
    """What a best checkpoint holds beside the training's own state. ChecksumError where that is nothing."""
    files = {name: best.read(name) for name in best.names if name not in TRAINING_FILES}
    if not files:
        raise ChecksumError(f"checkpoint {best.where} is marked as the best, and holds no adapter")
    return files


def write_folder(folder: Path, files: Mapping[str, bytes], tokenizer: Path, card: AdapterCard) -> None:
    """An adapter folder; what was there before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tokenizer, folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    card.write(folder)


def card_of(
    run_id: str,
    study: Study,
    state: StudyState,
    trial: TrialState,
    *,
    score: Score,
    metrics: Mapping[str, float],
    form: Form | None,
) -> AdapterCard:
    """What a trial's adapter says about itself. `form`: how questions were put to it, of a generation."""
    task, config = study.definition, study.trial(trial.config)
    asking = None
    if form is not None:
        asking = AskingCard(form=form, template=task.template, max_new_tokens=config.train.max_new_tokens)
    return AdapterCard(
        task=task.name,
        custom=study.custom,
        kind=task.kind,
        labels=task.labels,
        asking=asking,
        base=BaseModelCard(
            id=study.model.id,
            revision=study.model.revision,
            source=study.model.source,
            quantisation=study.tuner.quantisation,
            dtype=study.model.dtype,
        ),
        objective=ObjectiveCard(name=score.objective, value=score.value),
        seeds=_seeds(study, state, trial),
        direction=task.direction,
        metrics=metrics,
        data_fingerprint=score.data_fingerprint,
        max_length=config.train.max_length,
        method=config.tuner.method,
        tuner=config.tuner.model_dump(mode="json"),
        merged=config.tuner.trains_base,
        run_id=run_id,
        study=study.name,
        trial=trial.number,
        tunery=__version__,
    )


def _seeds(study: Study, state: StudyState, trial: TrialState) -> SeedsCard | None:
    """What the trial's configuration gave with other seeds; None where it was not trained again."""
    found = standing_of(state, trial.number, direction=study.definition.direction)
    if found is None or found.mean is None:
        return None
    return SeedsCard(count=len(found.runs), mean=found.mean, deviation=found.deviation)
