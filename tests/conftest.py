"""What tests of several folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import kubectl as kubectl_of
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


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Path:
    """The machine's, or one that is fetched once and kept in pytest's cache."""
    return kubectl_of.kubectl(request.config)


@pytest.fixture
def kubectl_on_path(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where commands look for it."""
    monkeypatch.setenv("PATH", f"{kubectl.parent}{os.pathsep}{os.environ['PATH']}")
