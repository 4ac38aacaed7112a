from __future__ import annotations

import json

import jsonschema
import pytest

from tunery.cli.app import run


def test_prints_one_json_schema_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    plain = capsys.readouterr().out
    assert run(["schema", "-o", "json"]) == 0
    assert capsys.readouterr().out == plain
    jsonschema.Draft202012Validator.check_schema(json.loads(plain))
