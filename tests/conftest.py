"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.object_store import OWNER, ObjectStore, started


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server; who stops it starts it again."""
    with ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("object-store"))


@pytest.fixture
def s3_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's key in the environment, where stores look for it."""
    for name, value in OWNER.environment.items():
        monkeypatch.setenv(name, value)
