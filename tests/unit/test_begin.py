"""Which trials can begin with a checkpoint, and which go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.checkpoints import CheckpointStore
from tunery.begin import Found, Origin, begun_with, misfits
from tunery.errors import InputError
from tunery.plan import Plan, TrialConfig, compile_plan
from tunery.runs import OF
from tunery.spec import parse_spec

SPEC: dict[str, Any] = {
    "apiVersion": "tunery/v1",
    "kind": "Sweep",
    "name": "new",
    "model": {"id": "embedded:minilm"},
    "tasks": ["cola"],
    "tuner": {"method": "lora", "rank": 8, "dropout": 0.1},
    "train": {"epochs": 3},
}


def plan_of(**changes: Any) -> Plan:
    return compile_plan(parse_spec(yaml.safe_dump(SPEC | changes), file="new.yaml"))


def origin_of_plan(plan: Plan, study: int = 0) -> Origin:
    found = plan.studies[study]
    config = TrialConfig(tuner=found.tuner, train=found.train)
    return Origin.of("old-01234567/cola/0", config, found.definition, model=found.model, train_set="rows.arrow")


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """A checkpoint of the spec's own values."""
    store = CheckpointStore(tmp_path / "0")
    store.save(24, {"seat": b"x", OF: origin_of_plan(plan_of()).to_bytes()}, metrics={}, best=False)
    return Found("old-01234567/cola/0@24", store.at(24))


def test_what_a_checkpoint_says_is_read_as_it_was_written(found: Found) -> None:
    assert found.origin == origin_of_plan(plan_of())


def test_a_plan_that_begins_with_a_checkpoint_says_so_and_survives_being_written(found: Found) -> None:
    plan = begun_with(plan_of(), found)
    assert plan.begin is not None
    assert plan.begin.checkpoint == "old-01234567/cola/0@24"
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


TUNER = SPEC["tuner"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuner": TUNER | {"rank": 4}}, "study cola: tuner.rank is 8 in the checkpoint, here it is 4"),
        ({"tuner": TUNER | {"alpha": 32}}, "tuner.alpha is 16.0 in the checkpoint, here it is 32.0"),
        ({"tuner": TUNER | {"target_modules": ["query"]}}, 'in the checkpoint, here it is ["query"]'),
        ({"tuner": {"method": "qlora", "rank": 8}}, 'of another method: "lora", here it is "qlora"'),
        ({"tuner": {"method": "full"}}, 'of another method: "lora", here it is "full"'),
        ({"model": {"id": "bert-base-uncased"}}, 'another base: its model is "embedded:minilm", here it is "bert-base'),
        ({"tasks": ["mnli"]}, "study mnli: the checkpoint's head is of a classification with 2 labels, here it is of a "
         "classification with 3 labels"),
        ({"tasks": ["stsb"]}, "here it is of a regression"),
        ({"tasks": ["cola", "mnli"]}, "study mnli: the checkpoint's head"),
        ({"search": {"trials": 2, "space": {"tuner.rank": {"choice": [4, 8]}}}},
         "search.space draws tuner.rank (one of 4, 8), and the checkpoint's is 8: set tuner.rank to that and take it"),
        ({"matrix": {"tuner.rank": [8, 16]}}, "study cola-rank-16: tuner.rank is 8 in the checkpoint, here it is 16"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named(found: Found, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        begun_with(plan_of(**changes), found)
    assert "checkpoint old-01234567/cola/0@24 does not fit this run's trials:" in str(refused.value)
    assert said in str(refused.value)
    assert "rank-8:" not in str(refused.value), "what fits is not told"


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epochs": 9, "learning_rate": 1e-5, "seed": 1}},
        {"tuner": TUNER | {"dropout": 0.0}},
        {"tasks": ["sst2"]},
        {"search": {"trials": 2, "space": {"train.epochs": {"choice": [1, 2]}, "tuner.dropout": {"choice": [0.1]}}}},
        {"search": {"trials": 2, "space": {"train.seed": {"choice": [1, 2]}, "tuner.rank": {"choice": [8]}}}},
    ],
    ids=str,
)
def test_weights_begin_trials_that_are_trained_otherwise(found: Found, changes: dict[str, Any]) -> None:
    assert begun_with(plan_of(**changes), found).begin is not None


def test_only_the_same_training_is_gone_on_with() -> None:
    mine = origin_of_plan(plan_of())
    kept = origin_of_plan(plan_of(train={"epochs": 3, "checkpoint": {"every_steps": 7}}))
    assert mine.same_training(kept.model_copy(update={"trial": "another/cola/3"}))
    for changes in ({"train": {"epochs": 4}}, {"tuner": TUNER | {"dropout": 0.0}}, {"tasks": ["sst2"]}):
        other = origin_of_plan(plan_of(**changes)).model_copy(update={"train_set": "of others.arrow"})
        assert not mine.same_training(other)
        assert list(misfits(mine, other)) == []
    assert not mine.same_training(mine.model_copy(update={"train_set": "other rows.arrow"}))


def test_of_a_revision_only_what_both_say_counts() -> None:
    named, other = (origin_of_plan(plan_of()).model_copy(update={"revision": commit}) for commit in ("abc", "def"))
    assert list(misfits(named, origin_of_plan(plan_of()))) == []
    assert list(misfits(named, other)) == [
        'the checkpoint is of another base: its revision is "abc", here it is "def"'
    ]  # fmt: skip


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(24, {"seat": b"x"}, metrics={}, best=False)
    with pytest.raises(InputError, match="another version of tunery wrote it; only its own trial can go on from it"):
        begun_with(plan_of(), Found("old/cola/0@24", store.at(24)))
