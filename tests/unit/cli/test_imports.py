"""The client half starts fast: what it does not need is not loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tunery

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "specs" / "quickstart.yaml"
HEAVY = {"torch", "ray", "mlflow", "optuna", "transformers", "peft", "datasets", "numpy", "pyarrow", "sklearn", "scipy",
         "matplotlib", "openpyxl"}  # fmt: skip

SCRIPT = """
import json, sys
from tunery.cli.app import run
code = run(sys.argv[1:])
print(json.dumps({"code": code, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stderr.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["submit", "--help"], ["validate", str(SPEC)], ["plan", str(SPEC)], ["schema"], ["ls"]],
    ids=" ".join,
)
def test_a_client_command_loads_nothing_heavy(arguments: list[str]) -> None:
    found = loaded_by(*arguments)
    assert found["code"] == 0
    modules = found["modules"]
    assert isinstance(modules, list)
    assert not HEAVY & set(modules)


def test_the_help_does_without_pydantic_and_yaml() -> None:
    modules = loaded_by("--help")["modules"]
    assert isinstance(modules, list)
    assert not {"pydantic", "yaml", "httpx", "tunery.spec"} & set(modules)


def test_one_command_does_not_import_the_others() -> None:
    modules = loaded_by("schema")["modules"]
    assert isinstance(modules, list)
    assert "tunery.cli.schema" in modules
    assert not {"tunery.cli.plan", "tunery.cli.init"} & set(modules)


def test_predictor_is_there_without_being_loaded() -> None:
    code = "import sys, tunery; assert 'Predictor' in tunery.__all__; print('torch' in sys.modules, tunery.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_the_version_is_that_of_the_distribution() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tunery.__version__ == declared


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = tunery.Nonsense
