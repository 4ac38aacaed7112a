from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage.stores import Address
from tunery.errors import ProfileError
from tunery.home import Home
from tunery.profile import config_file, load_profile
from tunery.profile_parts import Secret

TEAM = """\
default = "team"

[profiles.team]
target = "local"
tracking_uri = "https://mlflow.example.org"
study_storage_url = "postgresql://optuna@db.example.org/optuna"
artifacts = "/shared/artifacts"
ray = "10.0.0.7:6379"
cpus = 8

[profiles.team.secrets]
MLFLOW_TRACKING_PASSWORD = {env = "TEAM_PASSWORD"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file profiles are read from: not there yet."""
    monkeypatch.delenv("TUNERY_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = config_file()
    file.parent.mkdir(parents=True)
    return file


def test_without_a_file_it_is_the_embedded_state(config: Path, home: Home) -> None:
    assert not config.exists()
    profile = load_profile(None, home)
    assert (profile.name, profile.target, profile.ray, profile.cpus) == ("local", "local", None, None)
    assert profile.tracking_uri == home.tracking_uri
    assert profile.study_storage_url == home.study_storage_url
    assert profile.artifacts == str(home.artifacts)
    assert profile.environment() == {}
    assert not home.root.exists(), "looking must create nothing"


def test_a_profile_is_read(config: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(TEAM)
    profile = load_profile(None, home)
    assert (profile.name, profile.tracking_uri, profile.cpus) == ("team", "https://mlflow.example.org", 8)
    assert load_profile("team", home) == profile
    assert load_profile("local", home).tracking_uri == home.tracking_uri
    monkeypatch.setenv("TEAM_PASSWORD", "s3cret")
    assert profile.environment() == {"MLFLOW_TRACKING_PASSWORD": "s3cret"}
    assert "s3cret" not in repr(profile) + profile.model_dump_json()


def test_a_cluster_to_send_to(config: Path, home: Home) -> None:
    config.write_text("[profiles.x]\ntarget = 'ray'\njobs = 'https://h:1'\nca = '/c'\ntracking_uri = 'http://m'\n")
    profile = load_profile("x", home)
    assert (profile.target, profile.jobs, profile.ca) == ("ray", "https://h:1", "/c")


def test_where_checkpoints_are_kept(config: Path, home: Home, tmp_path: Path) -> None:
    config.write_text(
        f"""[profiles.bucket]
store = "s3://team/runs/"
[profiles.bucket.s3]
endpoint = "https://s3.example.org:9000/"
ca = "/etc/team.pem"
path_style = true
[profiles.shared]
store = "{tmp_path}"
"""
    )
    assert load_profile("local", home).place("run-1") is None
    assert load_profile("shared", home).place("run-1") == tmp_path / "run-1"
    settings: dict[str, str | bool] = {
        "endpoint": "https://s3.example.org:9000",
        "ca": "/etc/team.pem",
        "path_style": True,
    }
    assert load_profile("bucket", home).place("run-1") == Address("s3://team/runs/run-1", settings)


def test_secrets_are_at_hand_for_a_while_and_then_as_they_were(
    config: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('[profiles.x.secrets]\nA_KEY = {env = "TEAM_PASSWORD"}\nANOTHER = {env = "TEAM_PASSWORD"}\n')
    monkeypatch.setenv("TEAM_PASSWORD", "s3cret")
    monkeypatch.setenv("A_KEY", "before")
    monkeypatch.delenv("ANOTHER", raising=False)
    with load_profile("x", home).secrets_at_hand():
        assert (os.environ["A_KEY"], os.environ["ANOTHER"]) == ("s3cret", "s3cret")
    assert os.environ["A_KEY"] == "before"
    assert "ANOTHER" not in os.environ


def test_local_can_be_changed_in_part(config: Path, home: Home) -> None:
    config.write_text("[profiles.local]\ncpus = 2\n")
    assert (load_profile(None, home).cpus, load_profile(None, home).tracking_uri) == (2, home.tracking_uri)


def test_another_file_can_be_named(config: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("[profiles.local]\ncpus = 2\n")
    other = tmp_path / "other.toml"
    monkeypatch.setenv("TUNERY_CONFIG", str(other))
    with pytest.raises(ProfileError, match=r"other\.toml: no such file \(named by TUNERY_CONFIG\)"):
        load_profile(None, home)
    other.write_text("[profiles.local]\ncpus = 3\n")
    assert load_profile(None, home).cpus == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profiles.x\n", "{file}:1:12: "),
        ("a = 1\n", "{file}:1: unknown key 'a'; known: default, profiles"),
        ("default = 3\n", "{file}:1: default: expected the name of a profile"),
        ("profiles = 3\n", "{file}:1: profiles: expected tables"),
        ("[profiles.x]\ncpus = 'two'\n", "{file}:2: cpus: "),
        ("[profiles.x]\n\ncpus = 0\n", "{file}:3: cpus: input should be greater than or equal to 1"),
        ("[profiles.x]\ntarget = 'a'\ntrackng_uri = 'b'\n", "{file}:3: unknown key 'trackng_uri'; did you mean 'track"),
        ("[profiles.y]\ncpus = 1\n[profiles.x]\ncpus = 0\n", "{file}:4: cpus"),
        ("[profiles.x]\nname = 'y'\n", "{file}:2: unknown key 'name'"),
        ("[profiles.x]\ntracking_uri = 'https://u:hunter2@h'\n", "{file}:2: tracking_uri: it holds a password"),
        (
            "[profiles.x.secrets]\nA = 'hunter2'\n",
            '{file}:2: secrets.A: expected {{env = "NAME"}} or {{file = "PATH"}}',
        ),
        ("[profiles.x.secrets]\nA = {}\n", "{file}:2: secrets.A: expected"),
        ("[profiles.x.secrets]\nA = {env = 'a', file = 'b'}\n", "{file}:2: secrets.A: expected"),
        ("[profiles.x.secrets]\nA = {value = 'hunter2'}\n", "{file}:2: unknown key 'secrets.A.value'"),
        ("[profiles.x]\ntarget = 'ray'\n", "{file}:1: target 'ray' needs jobs and tracking_uri in [profiles.x]"),
        (
            "[profiles.x]\ntarget = 'ray'\njobs = 'https://h'\ntracking_uri = 'sqlite:///m.db'\n",
            "{file}:4: tracking_uri: expected http:// or https://, got 'sqlite:///m.db'",
        ),
        (
            "[profiles.x]\ntarget = 'ray'\njobs = 'h:8265'\ntracking_uri = 'http://m'\n",
            "{file}:3: jobs: expected an address with its scheme, such as https://head:8265, got 'h:8265'",
        ),
        ("[profiles.x]\ntarget = 'ray'\njobs = 'https://u:hunter2@h'\ntracking_uri = 'http://m'\n", "{file}:3: jobs: "),
        (
            "[profiles.x]\ntarget = 'ray'\njobs = 'https://h'\ntracking_uri = 'http://m'\ncpus = 2\n",
            "{file}:5: cpus: means nothing to target 'ray': the cluster's own profile says it",
        ),
        (
            "[profiles.x]\ntarget = 'ray'\njobs = 'https://h'\ntracking_uri = 'http://m'\nstore = 's3://b'\n",
            "{file}:5: store: means nothing to target 'ray': the cluster's own profile says it",
        ),
        (
            "[profiles.x]\n\njobs = 'https://h'\n",
            "{file}:3: jobs: means nothing to target 'local': it is for a cluster",
        ),
        ("[profiles.x]\nca = '/ca.pem'\n", "{file}:2: ca: means nothing to target 'local'"),
        ("[profiles.y]\n", "{file}: no profile 'x'; known: local, y"),
        (
            "[profiles.x]\nstore = 's3://id:hunter2@b'\n",
            "{file}:2: store: expected a bucket and a prefix alone: its key",
        ),
        ("[profiles.x]\nstore = 's3://b?key=hunter2'\n", "{file}:2: store: expected a bucket and a prefix alone"),
        ("[profiles.x]\nstore = 'gs://b'\n", "{file}:2: store: expected s3://BUCKET[/PREFIX] or a folder's whole path"),
        (
            "[profiles.x]\nweights = 'near'\n",
            "{file}:2: weights: expected a folder's whole path, the same on every node",
        ),
        ("[profiles.x]\nstore = 'runs'\n", "{file}:2: store: expected s3://BUCKET[/PREFIX] or a folder's whole path"),
        (
            "[profiles.x]\nstore = 's3://b'\n[profiles.x.s3]\nendpiont = 'http://h'\n",
            "{file}:4: unknown key 's3.endpiont'; did you mean 'endpoint'? known: endpoint, region, ca, path_style",
        ),
        (
            "[profiles.x]\nstore = 's3://b'\n[profiles.x.s3]\nendpoint = 'http://id:hunter2@h'\n",
            "{file}:4: s3.endpoint: expected http:// or https://, a host and perhaps a port, and nothing else",
        ),
        (
            "[profiles.x]\nstore = 's3://b'\n[profiles.x.s3]\nendpoint = 'h:80'\n",
            "{file}:4: s3.endpoint: expected http",
        ),
        ("[profiles.x]\nstore = 's3://b'\n[profiles.x.s3]\npath_style = true\n", "{file}:3: s3: path_style: Amazon's"),
        (
            "[profiles.x.s3]\nregion = 'eu'\n",
            "{file}:1: s3: is of a store s3://BUCKET[/PREFIX], and `store` is left out",
        ),
        ("[profiles.xx]\n", "{file}: no profile 'x'; did you mean 'xx'? known: local, xx"),
    ],
)
def test_a_mistake_names_file_and_line_and_no_secret(config: Path, home: Home, text: str, message: str) -> None:
    config.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile("x", home)
    assert str(caught.value).startswith(message.format(file=config))
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_text(config: Path, home: Home) -> None:
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(None, home)


class TestSecret:
    """Where a value is found."""

    def test_in_a_file_without_its_last_newline(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_text("a b\n")
        assert Secret(file=str(tmp_path / "s")).resolve() == "a b"

    def test_that_is_not_there_is_told_by_its_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOT_SET", raising=False)
        (tmp_path / "empty").touch()
        for secret, message in (
            (Secret(env="NOT_SET"), "environment variable NOT_SET"),
            (
                Secret(file=str(tmp_path / "none")),
                "none, which the profile names for a secret, cannot be read: No such",
            ),
            (Secret(file=str(tmp_path / "empty")), "is empty"),
        ):
            with pytest.raises(ProfileError, match=message):
                secret.resolve()
