"""Parts of a profile that stand for themselves: where a secret is found, and how an S3 store is reached."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tunery.errors import ProfileError


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Strict):
    """Where a secret's value is found; the value itself is never kept."""

    env: str | None = Field(None, min_length=1)
    """Name of an environment variable."""
    file: str | None = Field(None, min_length=1)
    """Path of a file; one newline at its end is not part of the value."""

    @model_validator(mode="before")
    @classmethod
    def _not_the_value(cls, given: object) -> object:
        if isinstance(given, str):
            raise ValueError('expected {env = "NAME"} or {file = "PATH"}: a secret itself does not stand in a profile')
        return given

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError('expected {env = "NAME"} or {file = "PATH"}, one of the two')
        return self

    def resolve(self) -> str:
        """The value, read now. ProfileError where it is not there; the message names the place and no value."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise ProfileError(f"the environment variable {self.env}, which the profile names, is not set")
            return value
        assert self.file is not None
        path = Path(self.file).expanduser()
        try:
            value = path.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ProfileError(
                f"the file {path}, which the profile names for a secret, cannot be read: {reason}"
            ) from None
        if not value:
            raise ProfileError(f"the file {path}, which the profile names for a secret, is empty")
        return value


class S3(Strict):
    """How an S3 store is reached; its key is among the secrets."""

    endpoint: str | None = None
    """URL of the server; None: Amazon's."""
    region: str | None = Field(None, min_length=1)
    ca: str | None = Field(None, min_length=1)
    """File with the certificates of the authorities that are believed; None: the machine's."""
    path_style: bool | None = None
    """Whether the bucket stands in the path or in the host's name; None: in the path if there is an endpoint."""

    @field_validator("endpoint")
    @classmethod
    def _is_a_server(cls, url: str | None) -> str | None:
        if url is not None:
            parts = split(url)
            bare = not (parts.username or parts.password or parts.path.strip("/") or parts.query or parts.fragment)
            if parts.scheme not in ("http", "https") or not parts.hostname or not bare:
                raise ValueError("expected http:// or https://, a host and perhaps a port, and nothing else")
        return url.rstrip("/") if url is not None else None

    @model_validator(mode="after")
    def _can_be(self) -> S3:
        if self.path_style and self.endpoint is None:
            raise ValueError(
                "path_style: Amazon's own S3 takes the bucket in the host's name; it goes with an endpoint"
            )
        return self


def store_address(text: str) -> str:
    """A store's address, without a slash at its end. ValueError: it is no bucket and no folder's whole path."""
    if Path(text).expanduser().is_absolute():
        return text
    parts = split(text)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "expected a bucket and a prefix alone: its key belongs under [profiles.<name>.secrets], as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the rest under [profiles.<name>.s3]"
        )
    if parts.scheme != "s3" or not parts.netloc or ":" in parts.netloc:
        raise ValueError(f"expected s3://BUCKET[/PREFIX] or a folder's whole path, got {text!r}")
    return text.rstrip("/")


def split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("expected a URL") from None
