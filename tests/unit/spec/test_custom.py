"""Tasks that a spec declares: what they become, and what is wrong with them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tunery import tasks
from tunery.errors import SpecError
from tunery.plan import compile_plan
from tunery.spec import parse_spec
from tunery.tasks.custom import CustomTask

HEAD = """apiVersion: tunery/v1
kind: Sweep
name: mine
model: {id: "embedded:minilm"}
tuner: {method: lora}
data: {source: path, root: ./data}
"""
TICKETS = "custom: {tickets: {kind: classification, text: message, label: team, labels: [a, b, c]}}\n"


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(HEAD + text, file="x.yaml")
    return [f"{mistake.line}: {mistake.message}" for mistake in caught.value.mistakes]


def test_it_becomes_a_task_like_those_of_the_catalogue() -> None:
    plan = compile_plan(parse_spec(HEAD + "tasks: [tickets, sst2]\n" + TICKETS, file="x.yaml"))
    mine, theirs = (study.definition for study in plan.studies)
    assert (mine.name, mine.text, mine.label, mine.labels) == ("tickets", "message", "team", ("a", "b", "c"))
    assert (mine.metrics, mine.objective, mine.folder) == (("accuracy", "mcc"), ("accuracy",), "tickets")
    assert theirs == tasks.get("sst2")
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


@pytest.mark.parametrize(
    ("fields", "metrics", "objective"),
    [
        ({"kind": "classification", "labels": ("a", "b")}, "accuracy f1 precision recall mcc auc", "accuracy"),
        ({"kind": "regression"}, "pearson spearman", "mean(pearson, spearman)"),
        ({"kind": "generation"}, "rouge1 rouge2 rougeL bleu", "rougeL"),
        ({"kind": "generation", "metrics": ("bleu",), "objective": ("bleu",)}, "bleu", "bleu"),
    ],
)
def test_what_it_is_measured_by_follows_from_its_kind(fields: dict[str, Any], metrics: str, objective: str) -> None:
    task = CustomTask(**{"text": "t", **fields})
    assert list(task.faults()) == []
    made = task.task("mine")
    assert (" ".join(made.metrics), made.objective_name) == (metrics, objective)
    assert made.prompt == ("{t}" if made.kind == "generation" else "")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{kind: classification, labels: [a, b]}", "needs the column of its text"),
        ("{kind: classification, text: t}", r"needs two different labels or more, got \[\]"),
        ("{kind: classification, text: t, labels: [a, a]}", "two different labels"),
        ("{kind: classification, text: t, labels: [a, b, a]}", "not all different"),
        ("{kind: regression, text: t, labels: [a, b]}", "a regression has no labels"),
        ("{kind: regression, text: t, prompt: '{t}'}", "a regression asks nothing"),
        ("{kind: regression, text: t, objective: [mcc]}", "'mcc' is no metric of a regression; known: pearson"),
        ("{kind: classification, text: t, labels: [a, b, c], metrics: [f1]}", "'f1' needs two labels; known: accuracy"),
        ("{kind: classification, text: t, labels: [a, b], metrics: [f1]}", "the objective 'accuracy' is not among"),
        ("{kind: generation}", "needs a prompt with columns in braces"),
        ("{kind: generation, text: t, text_pair: u}", "asks with its prompt, which may name several"),
        ("{kind: generation, prompt: 'hello'}", "it names no column"),
        ("{kind: generation, prompt: '{a!r}'}", r"expected \{column\} in braces, got \{a\}; a column's name has no"),
        ("{kind: generation, prompt: '{label}'}", "the model would be told what to say"),
        ("{kind: generation, text: t, template: 'Q:'}", "it drops what is asked"),
        ("{kind: generation, text: t, template: '{prompt} {answer}'}", r"leave \{answer\} out"),
        ("{kind: generatoin, text: t}", "did you mean 'generation'"),
    ],
)
def test_what_is_wrong_with_one_is_told_with_its_line(declared: str, message: str) -> None:
    found = mistakes(f"tasks: [mine]\ncustom:\n  mine: {declared}\n")
    assert any(re.search(f"^9: .*{message}", each) for each in found), found


def test_names_and_sources() -> None:
    assert mistakes("tasks: [sst2]\n" + TICKETS) == ["8: task 'tickets' is declared and not listed in tasks"]
    taken = "tasks: [sst2]\ncustom: {sst2: {kind: regression, text: t}}\n"
    assert mistakes(taken) == ["8: task 'sst2' is in the catalogue already: give yours another name"]
    assert "known: acceptability" in mistakes("tasks: [tickts]\n" + TICKETS)[0]
    hub = HEAD.replace("data: {source: path, root: ./data}\n", "") + "tasks: [tickets]\n" + TICKETS
    with pytest.raises(SpecError, match=r"custom\.tickets\.hub names no data set"):
        parse_spec(hub, file="x.yaml")
    parse_spec(hub.replace("label: team", "label: team, hub: {repo: me/tickets}"), file="x.yaml")
