"""A few trials in a database file."""

from __future__ import annotations

from pathlib import Path

import optuna

from benchmarks.servers import Servers
from benchmarks.stores import PARTS, measured, told


def test_what_trials_send_is_counted_and_the_study_is_removed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    found = measured(url, known=3, running=2, trials=2, evaluations=2, watched=Servers({}))
    assert all(found["parts"][part]["statements"] > 0 and found["parts"][part]["commits"] > 0 for part in PARTS)
    assert "drawn" in told(found, trials=2)
    assert optuna.get_all_study_names(url) == []
