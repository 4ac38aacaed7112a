"""`up --store`: what it takes, what it keeps, and what leads to the bucket."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from tests.unit.here.test_shape import SHARES
from tunery.errors import ConflictError, InputError
from tunery.here.kept import Kept, load, save
from tunery.here.layout import Layout
from tunery.here.mlflow import Mlflow
from tunery.here.parts import parts, write_profiles
from tunery.here.processes import remember
from tunery.here.shape import sized, with_ports
from tunery.here.store import Store, keep_key, wanted
from tunery.home import Home
from tunery.profile import load_profile

KEY = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "a key that nobody sees"}
SERVER = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_DEFAULT_REGION": "eu-1"}


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    made = Layout.of(Home(tmp_path / "home"))
    made.make()
    monkeypatch.setenv("TUNERY_CONFIG", str(made.config))
    return made


def settled(store: Store | None) -> Kept:
    return with_ports(Kept(database="sqlite", cpus=2, store=store), Random(7), print, running=False)


def mlflow_of(layout: Layout, kept: Kept) -> Mapping[str, str]:
    return next(part for part in parts(layout, kept, SHARES[:1]) if isinstance(part, Mlflow)).launch().environment


def test_a_bucket_is_found_by_mlflow_and_by_the_runs_and_its_key_is_in_files_alone(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (KEY | SERVER).items():
        monkeypatch.setenv(name, value)
    store = wanted("s3://models/team/", os.environ)
    assert store is not None
    kept = settled(store)
    keep_key(layout, os.environ, running=False)
    for part in parts(layout, kept, SHARES[:1]):
        part.prepare()
    write_profiles(layout, kept)
    save(layout, kept)
    assert load(layout) == kept

    environment = mlflow_of(layout, kept)
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://models/team/mlflow"
    assert environment["MLFLOW_S3_ENDPOINT_URL"] == SERVER["AWS_ENDPOINT_URL"]
    assert environment["AWS_DEFAULT_REGION"] == "eu-1"
    assert KEY["AWS_SECRET_ACCESS_KEY"] in Path(environment["AWS_SHARED_CREDENTIALS_FILE"]).read_text()

    profile = load_profile(None, layout.home)
    assert str(profile.place("a-run")) == "s3://models/team/checkpoints/a-run"
    assert (profile.s3.endpoint, profile.s3.region) == (SERVER["AWS_ENDPOINT_URL"], "eu-1")
    assert {name: profile.environment()[name] for name in KEY} == KEY

    for part in parts(layout, kept, SHARES[:1]):
        launch = part.launch()
        assert KEY["AWS_SECRET_ACCESS_KEY"] not in " ".join((*launch.command, *launch.environment.values()))
    holders = [
        file for file in layout.root.rglob("*") if file.is_file() and KEY["AWS_SECRET_ACCESS_KEY"] in file.read_text()
    ]
    assert {file.parent for file in holders} == {layout.secrets}
    assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}


def test_a_folder_needs_no_key(layout: Layout, tmp_path: Path) -> None:
    store = wanted(str(tmp_path / "nfs"), {})
    kept = settled(store)
    write_profiles(layout, kept)
    assert mlflow_of(layout, kept)["MLFLOW_ARTIFACTS_DESTINATION"] == f"{tmp_path}/nfs/mlflow"
    assert load_profile(None, layout.home).place("a-run") == tmp_path / "nfs/checkpoints/a-run"


@pytest.mark.parametrize(
    ("address", "environment", "said"),
    [
        ("models", KEY, "--store: expected s3://BUCKET[/PREFIX] or a folder's whole path, got 'models'"),
        ("s3://me:secret@models", KEY, "--store: expected a bucket and a prefix alone"),
        ("s3://models", {}, "lacks AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://models", KEY | {"AWS_SESSION_TOKEN": "x"}, "needs a key that does not expire"),
        (
            "s3://models",
            KEY | {"AWS_ENDPOINT_URL": "models.example"},
            "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL: expected",
        ),
    ],
)
def test_what_is_no_store_is_named(address: str, environment: Mapping[str, str], said: str) -> None:
    with pytest.raises(InputError) as raised:
        wanted(address, environment)
    assert said in str(raised.value)


def test_a_folder_of_the_user_is_a_whole_path_and_a_slash_makes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert wanted("~/data", {}) == wanted("/home/somebody/data/", {}) == Store(address="/home/somebody/data")


def test_what_another_version_knows_of_a_store_is_passed_over(layout: Layout) -> None:
    kept = settled(wanted("/data", {}))
    save(layout, kept)
    layout.kept.write_text(layout.kept.read_text().replace('"address"', '"later": 1, "address"'))
    assert load(layout) == kept


def test_a_cluster_keeps_the_store_that_it_began_with(tmp_path: Path) -> None:
    folder = settled(wanted(str(tmp_path), {}))
    assert sized(folder, None, None) == folder
    assert sized(folder, None, None, wanted(str(tmp_path), {})) == folder
    with pytest.raises(ConflictError, match=f"began with {tmp_path} for artifacts and checkpoints, and not /elsewhere"):
        sized(folder, None, None, wanted("/elsewhere", {}))
    with pytest.raises(ConflictError, match="began with its own folder for artifacts"):
        sized(settled(None), None, None, wanted(str(tmp_path), {}))


def test_one_that_is_up_is_not_led_to_its_store_in_another_way(layout: Layout) -> None:
    there = wanted("s3://models/team", KEY | SERVER)
    other = wanted("s3://models/team", KEY | SERVER | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9001"})
    down = settled(there)
    up = down.with_process("mlflow", remember(os.getpid()))
    keep_key(layout, KEY, running=False)
    assert sized(up, None, None, there) == up
    keep_key(layout, KEY, running=True)
    said = "with endpoint http://127.0.0.1:9000, and not http://127.0.0.1:9001: `platform down` first"
    with pytest.raises(ConflictError, match=said):
        sized(up, None, None, other)
    with pytest.raises(ConflictError, match="is up with another key in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: "):
        keep_key(layout, KEY | {"AWS_SECRET_ACCESS_KEY": "the next"}, running=True)
    assert layout.secret_file("s3-key").read_text() == KEY["AWS_SECRET_ACCESS_KEY"]

    # Down, it takes both.
    found = sized(down, None, None, other)
    assert found is not None
    assert found.store == other
    keep_key(layout, KEY | {"AWS_SECRET_ACCESS_KEY": "the next"}, running=False)
    assert "the next" in layout.secret_file("s3.ini").read_text()
