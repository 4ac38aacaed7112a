"""What a plan needs of the hubs, and the commits that a run keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import NotOnHubError
from storage.fetching import Wanted
from tests.stand_ins.hubs import Hubs, Repository, serving
from tunery.cluster.start import base_key
from tunery.fetching import not_wanted, pinned, wanted
from tunery.plan import Plan, compile_plan
from tunery.spec import parse_spec

SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: small
model: {id: org/one}
tasks: [cola, sst2]
tuner: {method: lora}
"""


def plan_of(more: str = "") -> Plan:
    return compile_plan(parse_spec(SPEC + more, file="x"))


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    files = {"config.json": b"{}", "model.safetensors": b"one"}
    with serving(Hubs({"org/one": Repository(dict(files))})) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", made.url)
        yield made


def silent(_: Wanted) -> None:
    return None


def test_models_and_data_are_wanted_once() -> None:
    found = wanted(plan_of("matrix: {model.id: [org/one, 'embedded:minilm'], tuner.rank: [4, 8]}"))
    assert found == (
        Wanted("model", "org/one"),
        Wanted("data", "nyu-mll/glue", config="cola"),
        Wanted("data", "nyu-mll/glue", config="sst2"),
    )
    assert not_wanted(plan_of("data: {source: path, root: /rows}")) == (
        "data of cola: the folder /rows", "data of sst2: the folder /rows"
    )  # fmt: skip


def test_one_id_on_two_hubs_is_two_bases() -> None:
    plan = plan_of("matrix: {model.source: [hub, modelscope]}")
    assert len({base_key(study) for study in plan.studies}) == 2
    assert len([each for each in wanted(plan) if each.kind == "model"]) == 2


def test_a_run_keeps_the_commit_that_it_began_with(hubs: Hubs, tmp_path: Path) -> None:
    before, plan = hubs.models["org/one"].commit, plan_of("matrix: {model.source: [hub, modelscope]}")
    first, failed = pinned(plan, tmp_path / "models.json", silent)
    assert ({study.model.revision for study in first.studies}, failed) == ({before}, {})
    hubs.models["org/one"].files["model.safetensors"] = b"two"
    hubs.forget()
    again, _ = pinned(plan, tmp_path / "models.json", silent)
    assert again.studies == first.studies
    assert hubs.requests == [], "a run that goes on asks no hub"
    other, _ = pinned(plan, tmp_path / "another.json", silent)
    assert {study.model.revision for study in other.studies} == {hubs.models["org/one"].commit}


def test_a_model_that_is_not_there_fails_its_own_studies(hubs: Hubs, tmp_path: Path) -> None:
    plan = plan_of("matrix: {model.id: [org/one, org/none]}")
    made, failed = pinned(plan, tmp_path / "models.json", silent)
    assert sorted(failed) == sorted(study.name for study in plan.studies if study.model.id == "org/none")
    assert all(isinstance(error, NotOnHubError) for error in failed.values())
    assert {study.model.revision for study in made.studies} == {None, hubs.models["org/one"].commit}
