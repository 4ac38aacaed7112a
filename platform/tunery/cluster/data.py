"""A study's data: read, checked and tokenised once, before any pack needs it."""

from __future__ import annotations

import importlib
from pathlib import Path

from transformers import AutoTokenizer

from storage.datasets import Fields, Rows, data_fingerprint, from_rows, read_hub, read_path
from storage.errors import MissingSplitError
from storage.models import model_folder
from storage.tokens import encoder, fingerprint, tokenise
from tunery.cluster.messages import StudyData
from tunery.errors import InputError
from tunery.plan import Study
from tunery.tasks import Task, get


def prepare(study: Study, cache: Path) -> StudyData:
    """Read and tokenise the splits of a study; a second call finds the files of the first.

    Raises storage.errors.DataError for rows that cannot be used.
    """
    task = get(study.task)
    folder = model_folder(study.model.id)
    tokenizer = AutoTokenizer.from_pretrained(folder, revision=study.model.revision, trust_remote_code=False)
    key = f"{fingerprint(tokenizer)}:{study.train.max_length}"
    encode = encoder(tokenizer, study.train.max_length)
    train = read(study, task, task.train_split)
    evals = _eval_sets(study, task)
    train_file = tokenise(train, encode, key=key, cache=cache / "tokens")
    eval_files = {split: tokenise(rows, encode, key=key, cache=cache / "tokens") for split, rows in evals.items()}
    saved = cache / "tokenizers" / fingerprint(tokenizer)[:16]
    if not (saved / "tokenizer_config.json").exists():
        tokenizer.save_pretrained(saved)
    return StudyData(
        task=task.name,
        train=train_file.path,
        evals={split: file.path for split, file in eval_files.items()},
        tokenizer=saved,
        fingerprint=data_fingerprint({split: rows.fingerprint for split, rows in evals.items()}),
        train_rows=train_file.examples,
        train_tokens=train_file.tokens,
        eval_rows=sum(file.examples for file in eval_files.values()),
        skipped=train.skipped + tuple(line for rows in evals.values() for line in rows.skipped),
    )


def _eval_sets(study: Study, task: Task) -> dict[str, Rows]:
    sets = {}
    for split in task.eval_splits:
        try:
            sets[split.name] = read(study, task, split.name)
        except MissingSplitError:
            if not split.optional:
                raise
    return sets


def read(study: Study, task: Task, split: str) -> Rows:
    """The rows of one split, bounded as the study's `data` says."""
    data = study.data
    limit = data.max_train if split == task.train_split else data.max_eval
    fields = Fields(task.text, task.text_pair, task.label, task.labels)
    if data.source == "embedded":
        rows = importlib.import_module(f"tunery.tasks.{task.name}").rows(split, seed=data.seed)
        origin = f"embedded:{task.name}/{split}"
        return from_rows(((text, None, float(label)) for text, label in rows), origin, limit=limit, seed=data.seed)
    if data.source == "path":
        assert data.root is not None
        return read_path(
            Path(data.root), task.folder, split, fields, bad_rows=data.bad_rows, limit=limit, seed=data.seed
        )
    if task.hub is None:
        known = "embedded" if task.generate else "path"
        raise InputError(f"task {task.name} is not on the hub; set data.source: {known}")
    return read_hub(task.hub.repo, task.hub.config, split, fields, bad_rows=data.bad_rows, limit=limit, seed=data.seed)
