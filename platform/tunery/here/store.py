"""Where the cluster keeps artifacts and checkpoints that are not to lie in its own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ConfigDict, ValidationError, field_validator

from tunery.errors import ConflictError, InputError
from tunery.here.layout import Layout, write_private
from tunery.profile_parts import S3, store_address

ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
_FILES = {ID: "s3-key-id", SECRET: "s3-key"}
_CREDENTIALS = "s3.ini"
"""The same once more, as Amazon's own libraries read it, so that no key is in an environment."""
_SETTINGS = {"endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
             "ca": ("AWS_CA_BUNDLE",)}  # fmt: skip
_DOWN_FIRST = ": `platform down` first; nothing that is kept is lost"


class Store(S3):
    """A bucket, or a folder, and how it is reached. Its key is in files of the cluster's.

    Stored data: what another version has added is passed over.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    address: str
    """s3://BUCKET[/PREFIX], or a folder's whole path."""

    _valid = field_validator("address")(store_address)

    @property
    def is_bucket(self) -> bool:
        return self.address.startswith("s3://")

    @property
    def artifacts(self) -> str:
        """Where MLflow keeps what it is given."""
        return f"{self.address}/mlflow"

    @property
    def checkpoints(self) -> str:
        """Where runs keep theirs."""
        return f"{self.address}/checkpoints"

    @property
    def settings(self) -> dict[str, str]:
        """How the bucket is reached, as a profile's table `s3` has it."""
        return {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}


def wanted(address: str | None, environment: Mapping[str, str]) -> Store | None:
    """The store that is asked for; a bucket's endpoint, region and CA as the variables of Amazon's tools name them.

    Raises:
        InputError: it is no bucket and no folder, or a bucket's key is not in the environment.
    """
    if address is None:
        return None
    found = {
        key: value for key, names in _SETTINGS.items() if (value := next(filter(None, map(environment.get, names)), ""))
    }
    bucket = address.startswith("s3://")
    try:
        store = Store.model_validate(
            {"address": address, **found} if bucket else {"address": str(Path(address).expanduser())}
        )
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False, include_input=False)
        name = first["loc"][0] if first["loc"] else "address"
        what = "--store" if name == "address" else " or ".join(_SETTINGS.get(str(name), (str(name),)))
        raise InputError(f"{what}: {str(first['msg']).removeprefix('Value error, ')}") from None
    if not store.is_bucket:
        return store
    if missing := [name for name in _FILES if not environment.get(name)]:
        lacking = " and ".join(missing)
        raise InputError(f"--store {address}: its key is read from the environment, which lacks {lacking}")
    if environment.get("AWS_SESSION_TOKEN"):
        raise InputError(f"--store {address}: AWS_SESSION_TOKEN is set; the cluster needs a key that does not expire")
    return store


def agreed(kept: Store | None, asked: Store | None, *, running: bool) -> Store | None:
    """The store of a cluster there is already.

    ConflictError where it is to be another, since what is kept would be lost; and where one that is up is to reach it
    in another way, which its parts would not hear of.
    """
    if asked is None:
        return kept
    if kept is None or kept.address != asked.address:
        before = kept.address if kept is not None else "its own folder"
        raise ConflictError(
            f"this machine's cluster began with {before} for artifacts and checkpoints, and not {asked.address}: "
            "what MLflow has there would not be found any more. To begin anew, see docs/cluster.md"
        )
    if running and kept.settings != asked.settings:
        changed = [
            f"{name} {kept.settings.get(name, 'unset')}, and not {asked.settings.get(name, 'unset')}"
            for name in _SETTINGS
            if kept.settings.get(name) != asked.settings.get(name)
        ]
        raise ConflictError(f"this machine's cluster reaches {asked.address} with {'; '.join(changed)}{_DOWN_FIRST}")
    return asked


def keep_key(layout: Layout, environment: Mapping[str, str], *, running: bool) -> None:
    """Write a bucket's key into files that only their owner reads. ConflictError where one that is up has another."""
    files = {name: layout.secret_file(file) for name, file in _FILES.items()}
    if running and any(file.exists() and file.read_text() != environment[name] for name, file in files.items()):
        raise ConflictError(f"this machine's cluster is up with another key in {' and '.join(_FILES)}{_DOWN_FIRST}")
    for name, file in files.items():
        write_private(file, environment[name])
    lines = "\n".join(f"{name.lower()} = {environment[name]}" for name in _FILES)
    write_private(layout.secret_file(_CREDENTIALS), f"[default]\n{lines}\n")


def key_files(layout: Layout, store: Store | None) -> dict[str, Path]:
    """Variable -> the file that holds its value, for a profile's secrets."""
    if store is None or not store.is_bucket:
        return {}
    return {name: layout.secret_file(file) for name, file in _FILES.items()}


def for_mlflow(layout: Layout, store: Store | None) -> dict[str, str]:
    """MLflow's settings of where it keeps artifacts."""
    if store is None:
        return {"MLFLOW_ARTIFACTS_DESTINATION": str(layout.root / "mlflow")}
    variables = {"MLFLOW_ARTIFACTS_DESTINATION": store.artifacts}
    if store.is_bucket:
        variables["AWS_SHARED_CREDENTIALS_FILE"] = str(layout.secret_file(_CREDENTIALS))
    if store.endpoint:
        variables |= {"MLFLOW_S3_ENDPOINT_URL": store.endpoint, "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path"}
    if store.region:
        variables["AWS_DEFAULT_REGION"] = store.region
    if store.ca:
        variables["AWS_CA_BUNDLE"] = store.ca
    return variables
