from __future__ import annotations

import subprocess
import sys

import pytest

from tunery import tasks
from tunery.errors import NotFoundError

GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli")


def test_glue_and_the_embedded_task_are_there() -> None:
    assert set(GLUE) | {"acceptability"} <= set(tasks.names())
    assert tasks.names() == tuple(sorted(tasks.names()))


def test_an_unknown_name_gets_a_suggestion_and_the_known_ones() -> None:
    with pytest.raises(
        NotFoundError, match=r"unknown task 'clola'; did you mean 'cola'\? known: acceptability, .*cola"
    ):
        tasks.get("clola")


@pytest.mark.parametrize(
    ("name", "columns", "labels"),
    [
        ("cola", ("sentence", None), ("unacceptable", "acceptable")),
        ("sst2", ("sentence", None), ("negative", "positive")),
        ("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
        ("stsb", ("sentence1", "sentence2"), ()),
        ("qqp", ("question1", "question2"), ("not_duplicate", "duplicate")),
        ("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        ("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
        ("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
        ("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
    ],
)
def test_glue_is_the_official_one(name: str, columns: tuple[str, str | None], labels: tuple[str, ...]) -> None:
    task = tasks.get(name)
    assert (task.text, task.text_pair) == columns
    assert task.labels == labels
    assert task.hub == tasks.HubRef("nyu-mll/glue", name)


def test_the_catalogue_loads_nothing_heavy() -> None:
    code = (
        "import sys, tunery.tasks as t; [t.get(n) for n in t.names()];"
        "print(sorted({'numpy', 'pyarrow', 'sklearn', 'scipy', 'torch', 'tunery.tasks.metrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
