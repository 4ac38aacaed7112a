from __future__ import annotations

import pytest

from tests.unit.report.documents.runs import MadeUp
from tunery.report.documents import Report, of_run
from tunery.report.documents.curves import read
from tunery.report.documents.facts import Facts, collect


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """Two methods and three amounts of data; one of the six cells has failed."""
    return MadeUp(tmp_path_factory.mktemp("home"), failing=("cola-method-qlora-max-train-20000",))


@pytest.fixture(scope="session")
def facts(made_up: MadeUp) -> Facts:
    return collect(made_up.state, made_up.plan, read(made_up.folder))


@pytest.fixture(scope="session")
def report(made_up: MadeUp) -> Report:
    return of_run(made_up.folder, made_up.state, made_up.plan)
