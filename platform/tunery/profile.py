"""The profile: what belongs to a place rather than to a sweep. Servers, and where their secrets are found.

    # ~/.config/tunery/config.toml; $XDG_CONFIG_HOME is honoured, $TUNERY_CONFIG names another file
    default = "team"                       # used without --profile; "local" where this is left out

    [profiles.team]
    target = "local"                       # where plans are sent: a module of tunery.client
    tracking_uri = "https://mlflow.example.org"
    study_storage_url = "postgresql://optuna@db.example.org/optuna"
    artifacts = "/shared/tunery/artifacts"
    ray = "10.0.0.7:6379"                  # a running Ray to join; left out: one is started for the run
    cpus = 8                               # of this machine, for a Ray that is started
    weights = "/scratch/tunery"            # a folder of each node's own disk, for copies of bases
    store = "s3://tunery/runs"             # where checkpoints are kept: a bucket and prefix, or a folder that all nodes
                                           # see; left out: each run's own folder. A run keeps what it began with

    [profiles.team.s3]                     # left out: Amazon's S3
    endpoint = "https://s3.example.org"
    region = "eu-1"
    ca = "/etc/ssl/team.pem"               # of the authority that signed the endpoint's certificate
    path_style = true                      # the bucket in the path, the default with an endpoint; else in its name

    [profiles.team.secrets]                # environment variable -> where its value is found
    MLFLOW_TRACKING_PASSWORD = {file = "/run/secrets/mlflow"}
    PGPASSWORD = {env = "TEAM_DB_PASSWORD"}
    AWS_ACCESS_KEY_ID = {file = "/run/secrets/s3-key"}
    AWS_SECRET_ACCESS_KEY = {file = "/run/secrets/s3-secret"}

A Ray that is joined inherits none of these secrets. Each process of a run there finds them itself, by the profile of
this name in its node's own configuration (TUNERY_CONFIG); what is set in its environment already stays as it is.

    [profiles.cluster]
    target = "ray"                         # the Jobs API of a running cluster, whose own profile has the rest
    jobs = "https://ray.example.org:8265"
    ca = "/etc/ssl/team.pem"               # beside the system's; left out where a public authority signed
    tracking_uri = "https://mlflow.example.org"

    [profiles.cluster.secrets]
    RAY_AUTH_TOKEN = {file = "/run/secrets/ray"}

    [profiles.kubernetes]
    target = "kubernetes"                  # a RayJob for each run, through the API server
    tracking_uri = "https://mlflow.example.org"

    [profiles.kubernetes.kubernetes]       # see `tunery.kube`
    context = "team"
    image = "registry.example.org/tunery@sha256:..."

Every key of the target "local" may be left out: the profile "local", which needs no file, is the embedded state under
TUNERY_HOME. The target "ray" needs `jobs` and a server as `tracking_uri`, which the cluster and this machine share; the
target "kubernetes" needs the latter alone. The profile "here" is written by `platform up`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from storage.stores import Address, Place
from tunery.errors import ProfileError
from tunery.home import Home
from tunery.kube import Kubernetes
from tunery.profile_parts import S3, Secret, Strict, split, store_address

LOCAL = "local"
HERE = "here"
"""The profile that `platform up` makes."""
TOKEN = "RAY_AUTH_TOKEN"
"""The secret that the Jobs API asks for, under the name that Ray itself has for it."""

_HERE = ("ray", "cpus", "study_storage_url", "artifacts", "store", "s3", "weights")
_THERE = ("jobs", "ca", "kubernetes")
_KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "local": ((), _THERE),
    "ray": (("jobs", "tracking_uri"), (*_HERE, "kubernetes")),
    "kubernetes": (("tracking_uri",), (*_HERE, "jobs")),
}
"""Target -> the keys it needs, and those that mean nothing to it."""


class Profile(Strict):
    """One profile, complete."""

    name: str
    target: str = "local"
    """A module of `tunery.client`."""
    tracking_uri: str
    """MLflow."""
    study_storage_url: str
    """Optuna's database."""
    artifacts: str
    """Where artifacts are kept: a folder, or what the tracking server takes."""
    ray: str | None = Field(None, min_length=1)
    """Address of a running Ray; None: one is started for the run."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of a Ray that is started; None: all of the machine's."""
    jobs: str | None = None
    """Address of the Jobs API of a running Ray, with its scheme: where the target `ray` sends plans."""
    ca: str | None = Field(None, min_length=1)
    """File of the certificates (PEM) that vouch for the cluster's servers, beside the system's own."""
    store: str | None = None
    """Where checkpoints are kept: s3://BUCKET[/PREFIX], or a folder that all nodes see; None: each run's own folder."""
    s3: S3 = S3()
    weights: str | None = None
    """A folder of each node's own disk, where the weights of bases are copied once a node; None: packs load them from
    where they are."""
    kubernetes: Kubernetes = Kubernetes()
    """Where the target `kubernetes` sends plans, and what is deployed there."""
    secrets: Mapping[str, Secret] = Field(default_factory=dict)
    """Environment variable -> where its value is found."""

    @field_validator("tracking_uri", "study_storage_url", "jobs")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and split(uri).password:
            raise ValueError("it holds a password; name that under [profiles.<name>.secrets], such as PGPASSWORD")
        return uri

    @field_validator("jobs")
    @classmethod
    def _with_scheme(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f"expected an address with its scheme, such as https://head:8265, got {url!r}")
        return url

    @field_validator("store")
    @classmethod
    def _is_a_store(cls, text: str | None) -> str | None:
        return None if text is None else store_address(text)

    @field_validator("weights")
    @classmethod
    def _is_a_folder(cls, text: str | None) -> str | None:
        if text is not None and not Path(text).is_absolute():
            raise ValueError(f"expected a folder's whole path, the same on every node, got {text!r}")
        return text

    @model_validator(mode="after")
    def _settings_of_its_store(self) -> Profile:
        if self.s3.model_fields_set and not (self.store or "").startswith("s3://"):
            raise ValueError(f"s3: is of a store s3://BUCKET[/PREFIX], and `store` is {self.store or 'left out'}")
        return self

    def place(self, name: str) -> Place | None:
        """Where in the store a run of that name keeps its checkpoints; None: in its own folder."""
        if self.store is None:
            return None
        if not self.store.startswith("s3://"):
            return Path(self.store).expanduser() / name
        return Address(self.store, self.s3.model_dump(exclude_none=True)) / name

    def environment(self) -> dict[str, str]:
        """The secrets as environment variables, read now: for the process that needs them, and no other."""
        return {name: secret.resolve() for name, secret in self.secrets.items()}

    @contextmanager
    def secrets_at_hand(self) -> Iterator[None]:
        """The secrets in the environment, for as long as the context lasts."""
        before = dict(os.environ)
        os.environ.update(self.environment())
        try:
            yield
        finally:
            for name in self.secrets:
                if name in before:
                    os.environ[name] = before[name]
                else:
                    os.environ.pop(name, None)


def config_file() -> Path:
    """The file that profiles are read from, whether it is there or not."""
    if named := os.environ.get("TUNERY_CONFIG"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").expanduser() / "tunery" / "config.toml"


def load_profile(name: str | None, home: Home) -> Profile:
    """The profile of that name; without one the file's default, and without that "local".

    Raises ProfileError for a mistake in the file (with its line where that is known) or a name it does not have.
    """
    file = config_file()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if os.environ.get("TUNERY_CONFIG"):
            raise ProfileError(f"{file}: no such file (named by TUNERY_CONFIG)") from None
        text = ""
    except (OSError, ValueError) as error:
        raise ProfileError(f"{file}: cannot be read: {error}") from error
    tables = _tables(text, file)
    profiles = tables.get("profiles", {})
    name = name or tables.get("default") or LOCAL
    made = home.cluster / "profile.toml"
    known = sorted({*profiles, LOCAL, *([HERE] if made.exists() else [])})
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        maker = "; `platform up` makes it" if name == HERE else ""
        raise ProfileError(f"{file}: no profile {name!r}{hint} known: {', '.join(known)}{maker}")
    if name != HERE or not made.exists():
        return _profile(name, profiles.get(name, {}), text, file, home)
    if HERE in profiles:
        raise ProfileError(
            f"{_place(text, file, HERE)}: `platform up` has made another profile {HERE!r}, {made}: rename this one"
        )
    text = made.read_text(encoding="utf-8")
    return _profile(name, _tables(text, made).get("profiles", {}).get(name, {}), text, made, home)


def _tables(text: str, file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(error))
        message = f"{file}:{found[2]}:{found[3]}: {found[1]}" if found else f"{file}: {error}"
        raise ProfileError(f"{message}; a profile is TOML") from None
    for key in tables:
        if key not in ("default", "profiles"):
            raise ProfileError(f"{_place(text, file, key)}: unknown key {key!r}; known: default, profiles")
    if not isinstance(tables.get("default", ""), str):
        raise ProfileError(f"{_place(text, file, 'default')}: default: expected the name of a profile")
    profiles = tables.get("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
        raise ProfileError(f"{_place(text, file, 'profiles')}: profiles: expected tables, [profiles.NAME]")
    return tables


def _profile(name: str, table: Mapping[str, Any], text: str, file: Path, home: Home) -> Profile:
    if "name" in table:
        raise ProfileError(f"{_place(text, file, name, 'name')}: unknown key 'name': the table's own name is it")
    embedded = {
        "tracking_uri": home.tracking_uri,
        "study_storage_url": home.study_storage_url,
        "artifacts": str(home.artifacts),
    }
    _check_keys(name, table, text, file)
    try:
        return Profile.model_validate({**embedded, **table, "name": name}, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        lines = [f"{_place(text, file, name, *each['loc'])}: {_problem(each)}" for each in problems]
        raise ProfileError("\n".join(lines)) from None


def _check_keys(name: str, table: Mapping[str, Any], text: str, file: Path) -> None:
    """ProfileError where the target lacks a key that it needs, or one is given that it would ignore."""
    target = table.get("target", LOCAL)
    if target not in _KEYS:
        return  # whether there is such a target is said by who looks for it
    needed, foreign = _KEYS[target]
    for key in foreign:
        if key in table:
            why = "the cluster's own profile says it" if key in _HERE else "it is for a cluster that plans are sent to"
            why = "it is for the target 'ray'" if key == "jobs" and target != LOCAL else why
            why = "it is for the target 'kubernetes'" if key == "kubernetes" else why
            raise ProfileError(f"{_place(text, file, name, key)}: {key}: means nothing to target {target!r}: {why}")
    place = _place(text, file, name)
    if missing := [key for key in needed if key not in table]:
        raise ProfileError(f"{place}: target {target!r} needs {' and '.join(missing)} in [profiles.{name}]")
    uri = table.get("tracking_uri", "")
    if "tracking_uri" in needed and isinstance(uri, str) and not uri.startswith(("http://", "https://")):
        raise ProfileError(
            f"{_place(text, file, name, 'tracking_uri')}: tracking_uri: expected http:// or https://, got {uri!r}: "
            f"with target {target!r} a run is followed over a server that the cluster and this machine share"
        )


def _problem(error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        tables: dict[object, type[BaseModel]] = {"secrets": Secret, "s3": S3, "kubernetes": Kubernetes}
        of = tables.get(error["loc"][0], Profile) if len(error["loc"]) > 1 else Profile
        known = [field for field in of.model_fields if field != "name"]
        close = get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown key {path!r}; {hint}known: {', '.join(known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    return f"{path}: {message}" if path else message


def _place(text: str, file: Path, *path: object) -> str:
    """`FILE:LINE` of a key: the last line that names the deepest part, after those that name the parts above it."""
    lines, found = text.splitlines(), 0
    for part in path:
        word = re.compile(rf"(^|[\s.\[{{\"',]){re.escape(str(part))}[\"']?\s*[=.\]]")
        later = [number for number in range(max(found - 1, 0), len(lines)) if word.search(lines[number])]
        found = later[0] + 1 if later else found
    return f"{file}:{found}" if found else str(file)
