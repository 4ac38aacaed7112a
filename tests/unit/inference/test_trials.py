"""A run's trial as a model: its best checkpoint, read with the hashes checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.mlflow_connection import connect
from storage.registry import Registry
from tests.unit.inference.conftest import make_adapter, make_run, save_best
from tunery.errors import InputError, NotFoundError, TuneryError, UnreachableError
from tunery.home import Home
from tunery.inference import trials
from tunery.inference.predictor import Predictor
from tunery.inference.source import locate
from tunery.runs import TRAINING_FILES, RunFolder

STUDY = "acceptability"


@pytest.fixture(autouse=True)
def _no_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TUNERY_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def run(home: Home, bert: Path, adapter: Path) -> RunFolder:
    folder = make_run(home, bert)
    save_best(folder, STUDY, 0, adapter, 24, 0.7)
    return folder


def test_every_way_to_name_a_trial(run: RunFolder, home: Home, adapter: Path) -> None:
    names = (f"{run.run_id}/{STUDY}/0", f"small/{STUDY}/0", f"{run.run_id}/0", "small/0")
    sources = [locate(name, home=home) for name in names]
    assert {source.name for source in sources} == {f"{run.run_id}/{STUDY}/0"}
    (folder,) = {source.folder for source in sources}
    left_out = [name for name in TRAINING_FILES if (folder / name).exists()]
    assert left_out == [], "what only training needs is left out"
    card = sources[0].card
    assert (card.task, card.objective.name, card.objective.value) == ("acceptability", "mcc", 0.7)
    assert (card.metrics, card.data_fingerprint) == ({"mcc": 0.7, "loss": 0.1}, "rows")
    assert (card.run_id, card.study, card.trial, card.max_length) == (run.run_id, STUDY, 0, 32)
    predictor = Predictor.load("small/0", home=home)
    assert predictor("A cat sat.") == Predictor.load(adapter)("A cat sat.")


def test_its_base_is_at_the_commit_that_its_run_has_kept(
    home: Home, bert: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(home, "org/tiny")
    folder.models_file.write_text('{"org/tiny": "abc123"}')
    save_best(folder, STUDY, 0, adapter, 24, 0.7)
    asked: list[tuple[str | None, ...]] = []

    def base_folder(*of: str | None) -> str:
        asked.append(of)
        return str(bert)

    monkeypatch.setattr(trials, "base_folder", base_folder)
    base = locate("small/0", home=home).card.base
    assert asked == [("org/tiny", "abc123", "hub")]
    assert (base.id, base.revision, base.source) == ("org/tiny", "abc123", "hub")


def test_a_better_checkpoint_is_the_model_from_then_on(run: RunFolder, home: Home, bert: Path, tmp_path: Path) -> None:
    before = locate("small/0", home=home)
    better = make_adapter(tmp_path / "better", bert)
    save_best(run, STUDY, 0, better, 36, 0.9)
    after = locate("small/0", home=home)
    assert after.folder != before.folder
    assert after.card.objective.value == 0.9
    assert before.folder.is_dir(), "who has it open reads on"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("smal/acceptability/0", NotFoundError, "no run 'smal'|may be"),
        ("nothing/acceptability/0", NotFoundError, "no run 'nothing'.* there is no folder nothing/acceptability/0"),
        ("small/acceptabilty/0", NotFoundError, "has no study 'acceptabilty'; did you mean 'acceptability'"),
        ("small/7", NotFoundError, r"has no trial 7; with a checkpoint: 0 \(the best\)"),
        ("small/best", NotFoundError, "has no trial best; with a checkpoint: 0"),
        ("small/acceptability", InputError, r"which trial of it\? Say small-.*/acceptability/TRIAL; there are: 0"),
        ("small/1", NotFoundError, "acceptability/1 has no checkpoint: it is running, step 3 of 24; .* with one: 0"),
        ("small/2", NotFoundError, "has no checkpoint: it is failed: diverged at step 2"),
        ("other/1", NotFoundError, "no run is named 'other'"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    run: RunFolder, home: Home, name: str, error: type[TuneryError], message: str
) -> None:
    if name.startswith("smal/"):  # the beginning of an id is enough
        assert locate(name, home=home).name == f"{run.run_id}/{STUDY}/0"
        return
    with pytest.raises(error, match=message):
        locate(name, home=home)


def test_of_several_studies_one_is_to_be_named(home: Home, bert: Path, adapter: Path) -> None:
    folder = make_run(home, bert, name="two", studies=2)
    names = [study.name for study in folder.state().studies]
    save_best(folder, names[1], 0, adapter, 24, 0.6)
    with pytest.raises(InputError, match=rf"has 2 studies: say which, as {folder.run_id}/STUDY/0; known: {names[0]}"):
        locate("two/0", home=home)
    assert locate(f"two/{names[1]}/0", home=home).card.study == names[1]


def test_a_damaged_checkpoint_is_refused_or_passed_over(run: RunFolder, home: Home, bert: Path, tmp_path: Path) -> None:
    assert locate("small/0", home=home).notes == ()
    newest = save_best(run, STUDY, 0, make_adapter(tmp_path / "better", bert), 36, 0.9)
    weights = newest / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    source = locate("small/0", home=home)
    assert source.card.objective.value == 0.7, "the best before it"
    assert len(source.notes) == 1
    assert "its SHA-256 differs" in source.notes[0]
    for folder in (run.root / "checkpoints" / STUDY / "0").iterdir():
        (folder / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"has no adapter that can be read: .* has 3 bytes, its manifest says"):
        locate("small/0", home=home)


def test_a_registered_model_of_the_runs_name_goes_before_its_trial(run: RunFolder, home: Home, adapter: Path) -> None:
    client = connect(home.tracking_uri)
    logged = client.create_run(client.create_experiment("e", artifact_location=home.artifacts.as_uri())).info.run_id
    client.log_artifacts(logged, str(adapter), "adapter")
    registry = Registry(home.tracking_uri)
    registry.register("other", run_id=logged, artifact_path="adapter", tags={})
    assert locate("small/0", home=home).name == f"{run.run_id}/{STUDY}/0", "only a run has the name"
    registry.register("small", run_id=logged, artifact_path="adapter", tags={})
    assert locate("small/1", home=home).name == "small/1"
    with pytest.raises(NotFoundError, match="'small' has no version 0"):
        locate("small/0", home=home)
    assert locate(f"small/{STUDY}/0", home=home).name == f"{run.run_id}/{STUDY}/0"


def test_a_trial_needs_no_registry_where_it_is_named_in_full(
    run: RunFolder, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[profiles.away]\ntracking_uri = "http://127.0.0.1:9"\n')
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    assert locate(f"{run.run_id}/0", home=home, profile="away").card.trial == 0
    with pytest.raises(UnreachableError, match=rf"does not answer.*the trial of the run is {run.run_id}/0"):
        locate("small/0", home=home, profile="away")


def test_a_folder_without_an_adapter_hides_no_model(
    run: RunFolder, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small" / "0").mkdir(parents=True)
    assert locate("small/0", home=home).name == f"{run.run_id}/{STUDY}/0"
    (tmp_path / "glue").mkdir()
    with pytest.raises(NotFoundError, match="the folder glue holds no adapter of tunery"):
        locate("glue", home=home)
    with pytest.raises(NotFoundError, match=r"there is no tunery\.json"):
        locate("./glue", home=home)
