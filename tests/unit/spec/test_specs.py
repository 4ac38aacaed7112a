"""The specs of this repository, what `init` writes, and the JSON Schema that describes both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tunery import tasks
from tunery.plan import Plan, compile_plan
from tunery.spec import json_schema, load_spec, parse_spec
from tunery.spec.template import template

FOLDER = Path(__file__).parents[3] / "specs"
SPECS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.name)
def test_a_spec_here_is_planned_and_survives_being_written(file: Path) -> None:
    plan = compile_plan(load_spec(file))
    assert plan.trials >= 2
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert compile_plan(plan.spec) == plan


def test_rows_that_only_their_owner_knows_are_as_many_as_are_asked_for() -> None:
    plan = compile_plan(load_spec(FOLDER / "medqa_scale_qwen2.5_3b.yaml"))
    assert [estimate.train_rows for estimate in plan.estimates] == 2 * [20_000, 50_000, 100_000]


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.name)
def test_a_spec_here_names_the_schema_and_follows_it(file: Path, schema: dict[str, Any]) -> None:
    text = file.read_text(encoding="utf-8")
    line = "# yaml-language-server: $schema="
    assert text.startswith(line)
    assert (FOLDER / text.splitlines()[0].removeprefix(line)).is_file()
    jsonschema.validate(yaml.safe_load(text), schema)


def test_the_schema_beside_the_specs_is_the_present_one(schema: dict[str, Any]) -> None:
    assert json.loads((FOLDER / "tunery.schema.json").read_text(encoding="utf-8")) == schema, (
        "write it anew with: platform schema > specs/tunery.schema.json"
    )


def test_the_schema_refuses_what_the_loader_refuses(schema: dict[str, Any]) -> None:
    good = yaml.safe_load((FOLDER / "glue_sweep.yaml").read_text(encoding="utf-8"))
    changes: tuple[dict[str, Any], ...] = (
        {"bogus": 1},
        {"tasks": ["clola"]},
        {"train": {"epoch": 3}},
        {"tuner": {"method": "lara"}},
        {"search": {"space": {"tuner.rnak": {"choice": [1]}}}},
        {"search": {"space": {"tuner.rank": {"chioce": [1]}}}},
        {"overrides": {"cola": {"train.epochs": 0}}},
        {"overrides": {"clola": {}}},
        {"matrix": {"train.epochs": [0]}},
        {"name": "Not Good"},
    )
    for change in changes:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(good | change, schema)


def test_the_schema_describes_its_fields(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    definitions = schema["$defs"]
    assert "seed" in definitions["DataSpec"]["properties"]["max_train"]["description"]
    assert definitions["TrainConfig"]["properties"]["max_length"]["description"].startswith("Tokens after which")
    assert (
        definitions["Overrides"]["properties"]["tuner.alpha"]["description"] == "The update is scaled by alpha / rank."
    )


@pytest.mark.parametrize("task", tasks.names())
@pytest.mark.parametrize("model", ["embedded:minilm", "Qwen/Qwen2.5-1.5B", "./a folder", "someone/unknown"])
def test_what_init_writes_is_a_spec(task: str, model: str, schema: dict[str, Any]) -> None:
    text = template(name="My sweep: 1", task_names=(task,), model=model)
    spec = parse_spec(text, file="x.yaml")
    assert spec.name == "my-sweep-1"
    assert spec.tasks == (task,)
    assert compile_plan(spec).trials == 6
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize("name", ["1e5", "null", "true", "123", "...", "É", "a" * 100])
def test_any_file_name_gives_a_name(name: str) -> None:
    assert parse_spec(template(name=name, task_names=("cola",), model="a/b"), file="x.yaml").name


class TestFolders:
    """Relative folders."""

    TEXT = (
        "apiVersion: tunery/v1\nkind: Sweep\nname: x\nmodel: {id: ../m}\ntasks: [cola]\n"
        "data: {source: path, root: d}\ntuner: {method: lora}\n"
    )

    def test_are_the_specs_own(self, tmp_path: Path) -> None:
        file = tmp_path / "specs" / "x.yaml"
        file.parent.mkdir()
        file.write_text(self.TEXT)
        spec = load_spec(file)
        assert spec.data.root == str(tmp_path / "specs" / "d")
        assert spec.model.id == str(tmp_path / "m")

    def test_of_the_command_line_are_the_working_directorys(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "x.yaml").write_text(self.TEXT)
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        spec = load_spec(tmp_path / "x.yaml", overrides=["data.root=e", "model={id: ./n}"])
        assert spec.data.root == str(tmp_path / "here" / "e")
        assert spec.model.id == str(tmp_path / "here" / "n")

    def test_of_the_matrix_too(self, tmp_path: Path) -> None:
        text = self.TEXT + "matrix: {model.id: [./a, org/b, 'embedded:minilm']}\n"
        spec = parse_spec(text, file="x", folder=tmp_path)
        assert spec.matrix["model.id"] == (str(tmp_path / "a"), "org/b", "embedded:minilm")
