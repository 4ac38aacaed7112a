from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import StorageError
from tunery.cluster.staging import staged


def test_what_a_killed_pack_has_left_of_the_same_trial_goes(tmp_path: Path) -> None:
    for name in (".3-left", ".31-of-another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "seat").write_bytes(b"x")
    with staged(tmp_path / "3.log") as folder:
        assert folder.parent == tmp_path
        assert not list(folder.iterdir())
        assert sorted(each.name for each in tmp_path.iterdir()) == sorted([".31-of-another", folder.name])
    assert [each.name for each in tmp_path.iterdir()] == [".31-of-another"]


def test_where_it_cannot_be_made_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with (
        pytest.raises(StorageError, match=r"no folder for a checkpoint.*the last good one is kept"),
        staged(tmp_path / "logs" / "3.log"),
    ):
        pass
