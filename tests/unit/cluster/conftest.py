"""MLflow on sqlite, a spool, and who carries it there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunery.cluster.tracking import Shipper


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out once: that takes seconds."""
    from storage.mlflow_connection import connect

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "glue-0a1b2c3d" / "spool"


@pytest.fixture
def shipper(spool: Path, database: Path, tmp_path: Path) -> Iterator[Shipper]:
    shipper = Shipper(spool, f"sqlite:///{database}", artifacts=tmp_path / "artifacts")
    yield shipper
    shipper.close()
