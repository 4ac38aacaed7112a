"""A study's database."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tunery.cluster.draws import ENDINGS, create_ledger, ended, open_study
from tunery.spec import SearchSpec


def test_a_study_in_sqlite_is_written_while_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    url = f"sqlite:///{file}"
    create_ledger(url)

    def opened() -> list[tuple[int, str]]:
        study = open_study(SearchSpec(), study_name="cola", url=url, mode="max")
        return [(trial.number, ENDINGS[trial.state]) for trial in ended(study)]

    writer = open_study(SearchSpec(), study_name="cola", url=url, mode="max")
    writer.tell(writer.ask(), 0.5)
    with sqlite3.connect(file) as elsewhere:
        assert elsewhere.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        elsewhere.execute("BEGIN")
        elsewhere.execute("SELECT count(*) FROM trials").fetchone()
        writer.tell(writer.ask(), 0.6)  # with a reader in the middle of something
    assert opened() == [(0, "finished"), (1, "finished")]
