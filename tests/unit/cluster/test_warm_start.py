"""What a study begins with, from a real registry on sqlite."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Param

from storage.mlflow_connection import connect
from storage.registry import Registry
from tests.unit.cluster.searching import Process
from tunery.cluster import draws
from tunery.cluster.messages import DRAW, ORIGIN
from tunery.cluster.warm_start import champions, read, within
from tunery.errors import RunError
from tunery.plan import Study, compile_plan
from tunery.spec import Choice, IntUniform, LogUniform, Range, Uniform, parse_spec

SPEC = """\
apiVersion: tunery/v1
kind: Sweep
name: later
model: {id: org/model}
tasks: [cola]
tuner: {method: lora, rank: 8}
train: {learning_rate: 1.0e-4, schedule: linear}
search:
  trials: 6
  sampler: {name: random}
  pruner: {name: none}
  warm_start: registry
  space:
    tuner.rank: {choice: [4, 8, 16]}
    train.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}
    train.schedule: {choice: [linear, cosine]}
"""
TAGS = {"tunery.task": "cola", "tunery.base": "org/model"}


def study_of(text: str = SPEC) -> Study:
    return compile_plan(parse_spec(text, file="x")).studies[0]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with champions of earlier studies: for this task and base, for another task, on another base."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    client, registry = connect(uri), Registry(uri)
    experiment = client.create_experiment("earlier", artifact_location=(folder / "artifacts").as_uri())

    def champion(model: str, tags: dict[str, str], alias: str = "champion", **settings: object) -> None:
        run_id = client.create_run(experiment).info.run_id
        client.log_batch(run_id, params=[Param(path.replace("__", "."), str(v)) for path, v in settings.items()])
        version = registry.register(model, run_id=run_id, artifact_path="adapter", tags=tags)
        registry.promote(model, version.version, alias, by="me", why="")

    champion("a-old", TAGS, tuner__rank=16, train__learning_rate=0.00025, train__schedule="cosine", train__seed=7)
    champion("a-same", TAGS, tuner__rank=16, train__learning_rate=0.00025, train__schedule="cosine")
    champion("a-wide", TAGS, tuner__rank=64, train__learning_rate=0.5, train__schedule="linear")
    champion("b-task", TAGS | {"tunery.task": "sst2"}, tuner__rank=4)
    champion("c-base", TAGS | {"tunery.base": "org/other"}, tuner__rank=4)
    champion("d-staged", TAGS, alias="staged", tuner__rank=4)
    run_id = client.create_run(experiment).info.run_id
    registry.register("e-refused", run_id=run_id, artifact_path="adapter", tags=TAGS)
    return uri


def test_it_is_the_champions_for_this_task_on_this_base_newest_first(uri: str) -> None:
    found = {first.origin: dict(first.values) for first in champions(study_of(), uri)}
    best = {"tuner.rank": 16, "train.learning_rate": 0.00025, "train.schedule": "cosine"}
    assert found == {
        "registry a-wide/1": {"train.schedule": "linear"},  # its other values lie outside
        "registry a-same/1": best,
        "registry a-old/1": best,
    }
    assert next(iter(found)) == "registry a-wide/1"


def test_the_same_id_on_another_hub_is_another_base(uri: str) -> None:
    assert list(champions(study_of(SPEC.replace("org/model", "org/model, source: modelscope")), uri)) == []


def test_the_alias_is_the_study_s_own(uri: str) -> None:
    staged = study_of(SPEC + "registry: {alias: staged}\n")
    assert [first.values for first in champions(staged, uri)] == [{"tuner.rank": 4}]


def test_half_the_trials_are_left_to_the_search(uri: str) -> None:
    assert len(list(champions(study_of(SPEC.replace("trials: 6", "trials: 2")), uri))) == 1


def test_a_study_begins_with_its_own_values_and_the_champions_each_once(uri: str, tmp_path: Path) -> None:
    study = study_of()
    process = Process(tmp_path, study.search)
    draws.queue(process.study, study.search, [draws.First(study.default_draw(), "spec"), *champions(study, uri)])
    configs = process.run(4, lambda *_: 0.5)
    assert [c[ORIGIN] for c in configs] == ["spec", "registry a-wide/1", "registry a-same/1", ""]
    assert configs[0][DRAW] == {"tuner.rank": 8, "train.learning_rate": 1e-4, "train.schedule": "linear"}
    assert configs[1][DRAW]["train.schedule"] == "linear"
    assert configs[2][DRAW] == {"tuner.rank": 16, "train.learning_rate": 0.00025, "train.schedule": "cosine"}


def test_a_registry_that_does_not_answer_is_named_with_the_way_out(tmp_path: Path) -> None:
    told = r"search.warm_start: the registry at sqlite:.* does not answer: .*with `search.warm_start: none`"
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=told):
        list(champions(study_of(), f"sqlite:///{tmp_path}/file/mlflow.db"))


READ: list[tuple[str, Range, tuple[object, ...]]] = [
    ("8", Choice(choice=(4, 8)), (8,)),
    ("8", Choice(choice=(4, 8.0)), ()),
    ("True", Choice(choice=(True, False)), (True,)),
    ("None", Choice(choice=("a", None)), (None,)),
    ("16", Choice(choice=(4, 8)), ()),
    ("3", IntUniform(int_uniform=(1, 3)), (3,)),
    ("4", IntUniform(int_uniform=(1, 3)), ()),
    ("3.5", IntUniform(int_uniform=(1, 4)), ()),
    ("1e-05", LogUniform(log_uniform=(1e-5, 1e-3)), (1e-5,)),
    ("0.5", Uniform(uniform=(0.0, 0.2)), ()),
    ("nan", Uniform(uniform=(0.0, 0.2)), ()),
    ("linear", Uniform(uniform=(0.0, 0.2)), ()),
]


@pytest.mark.parametrize(("text", "drawn", "expected"), READ)
def test_a_setting_is_read_as_its_range_writes_it(text: str, drawn: Range, expected: tuple[object, ...]) -> None:
    found = read(text, drawn)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_what_was_not_set_is_left_out() -> None:
    assert within({"x": "1"}, {"tuner.rank": Choice(choice=(1,))}) == {}
