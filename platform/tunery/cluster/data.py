"""A study's data: read, checked and tokenised once, before any pack needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer

from storage.datasets import data_fingerprint
from storage.fetching import base_folder
from storage.tokens import EncodeRows, TokenFile, TokenTable, encoder, fingerprint, labelled, tokenise
from tunery.cluster.messages import StudyData
from tunery.plan import Study
from tunery.rows import Place, Repeats, training_sets
from tunery.tasks import Task
from tunery.tasks.prompting import Prompting, stop_tokens


def prepare(study: Study, cache: Path) -> StudyData:
    """Read and tokenise the splits of a study; a second call finds the files of the first.

    Raises storage.errors.DataError for rows that cannot be used, InputError where the model cannot be asked.
    """
    task, data = study.definition, study.data
    folder = base_folder(study.model.id, study.model.revision, study.model.source)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    place = place_of(study)
    sets = training_sets(task, place, max_train=data.max_train, max_eval=data.max_eval, deduplicate=data.deduplicate)
    prompting = Prompting.of(tokenizer, task.template, form=data.template) if task.kind == "generation" else None
    train, evaluation = _encoded(study, tokenizer, prompting)
    train_file = tokenise(sets.train, train.encode, key=train.key, cache=cache / "tokens")
    eval_files = {
        split: tokenise(rows, evaluation.encode, key=evaluation.key, cache=cache / "tokens")
        for split, rows in sets.evals.items()
    }
    saved = cache / "tokenizers" / fingerprint(tokenizer)[:16]
    if not (saved / "tokenizer_config.json").exists():
        tokenizer.save_pretrained(saved)
    stop = stop_tokens(tokenizer) if prompting is not None else ()
    return StudyData(
        task=task,
        train=train_file.path,
        evals={split: file.path for split, file in eval_files.items()},
        tokenizer=saved,
        fingerprint=data_fingerprint({split: rows.fingerprint for split, rows in sets.evals.items()}),
        train_rows=train_file.examples,
        train_tokens=train_file.tokens,
        eval_rows=sum(file.examples for file in eval_files.values()),
        skipped=sets.train.skipped + tuple(line for rows in sets.evals.values() for line in rows.skipped),
        notes=(
            *_fewer(data.max_train, train_file),
            *_repeated(sets.repeats),
            *_cut(task, train_file, stop, study.train.max_length),
        ),
        stop=stop,
        form=prompting.form if prompting is not None else "",
    )


def place_of(study: Study) -> Place:
    """Where a study's rows are."""
    data = study.data
    return Place(data.source, Path(data.root) if data.root is not None else None, data.seed, data.bad_rows)


class _Encoding(NamedTuple):
    encode: EncodeRows
    key: str
    """What `encode` does depends on this alone."""


def _encoded(study: Study, tokenizer: Any, prompting: Prompting | None) -> tuple[_Encoding, _Encoding]:
    """Training rows and evaluation rows. InputError where the model's answers would not end."""
    most, room = study.train.max_length, study.train.max_new_tokens
    key = f"{fingerprint(tokenizer)}:{most}"
    if prompting is None:
        both = _Encoding(labelled(encoder(tokenizer, most)), key)
        return both, both
    key += f":{prompting}:{getattr(tokenizer, 'chat_template', '') if prompting.form == 'chat' else ''}"
    questions = prompting.questions(tokenizer, max_length=most, room=room)
    return _Encoding(questions.to_learn, key), _Encoding(questions.to_evaluate, f"{key}:{room}")


def _fewer(wanted: int | None, file: TokenFile) -> list[str]:
    if wanted is None or file.examples >= wanted:
        return []
    return [f"all {file.examples:,} training rows that there are: data.max_train asks for {wanted:,}"]


def _repeated(repeats: Repeats) -> list[str]:
    found = [
        (repeats.within, "have the text of an earlier one"),
        (repeats.shared, "have a text that is among the evaluation's"),
    ]
    advice = "left out" if repeats.dropped else "kept; data.deduplicate: true leaves them out"
    return [f"{count:,} training rows {what} ({advice})" for count, what in found if count]


def _cut(task: Task, file: TokenFile, stop: tuple[int, ...], max_length: int) -> list[str]:
    """Answers that did not fit: they are learned without their ends."""
    if task.kind != "generation":
        return []
    table = TokenTable(file.path)
    cut = sum(int(table[index].ids[-1]) not in stop for index in range(len(table)))
    return [f"{cut:,} of {len(table):,} answers are cut: they do not fit into {max_length} tokens"] if cut else []
