"""From a name to a folder: the registry's files are copied once, and whole."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.mlflow_connection import connect
from storage.registry import Registry
from tunery.errors import NotFoundError, UnreachableError
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.inference.predictor import Predictor
from tunery.inference.source import locate


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, adapter: Path) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    client = connect(home.tracking_uri)
    run_id = client.create_run(client.create_experiment("e", artifact_location=home.artifacts.as_uri())).info.run_id
    client.log_artifacts(run_id, str(adapter), "adapter")
    registry = Registry(home.tracking_uri)
    registry.register("glue-cola", run_id=run_id, artifact_path="adapter", tags={})
    registry.promote("glue-cola", "1", by="me", why="")
    return home


@pytest.fixture(autouse=True)
def _no_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNERY_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.parametrize("name", ["glue-cola", "glue-cola@champion", "glue-cola/1"])
def test_every_way_to_name_a_version(home: Home, adapter: Path, name: str) -> None:
    source = locate(name, home=home)
    assert source.name == "glue-cola/1"
    assert source.card == AdapterCard.read(adapter)
    assert sorted(p.name for p in source.folder.iterdir()) == sorted(p.name for p in adapter.iterdir())


def test_a_registered_model_predicts_as_its_folder(home: Home, adapter: Path) -> None:
    assert Predictor.load("glue-cola@champion", home=home)("A cat sat.") == Predictor.load(adapter)("A cat sat.")


def test_eight_at_once_find_one_whole_copy(home: Home) -> None:
    shutil.rmtree(home.cache, ignore_errors=True)
    with ThreadPoolExecutor(8) as pool:
        folders = {source.folder for source in pool.map(lambda _: locate("glue-cola", home=home), range(8))}
    (folder,) = folders
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_what_is_not_there_is_told(home: Home) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'glue-cola'"):
        locate("glue-cole", home=home)
    with pytest.raises(NotFoundError, match="no folder"):
        locate("./glue-cola", home=home)


def test_an_empty_home_is_not_filled_by_asking(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing was tracked yet"):
        locate("glue-cola", home=Home(tmp_path / "fresh"))
    assert not (tmp_path / "fresh").exists()


def test_a_server_that_does_not_answer_is_named(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[profiles.away]\ntracking_uri = "http://127.0.0.1:9"\n')
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 does not answer"):
        locate("glue-cola", home=home, profile="away")
