"""Where a run keeps its checkpoints is settled once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.checkpoints import CheckpointStore
from storage.errors import StorageError
from storage.stores import Address
from tests.unit.test_begin import plan_of
from tunery.cluster import stored
from tunery.home import Home
from tunery.plan import Begin, Plan
from tunery.profile import Profile, load_profile
from tunery.runs import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "home" / "runs" / "small-01234567")


@pytest.fixture
def plan() -> Plan:
    return plan_of()


def profile(tmp_path: Path, **changes: Any) -> Profile:
    return load_profile("local", Home(tmp_path / "home")).model_copy(update=changes)


def test_without_a_store_it_is_the_runs_own_folder(folder: RunFolder, plan: Plan, tmp_path: Path) -> None:
    stored.settle(folder, plan, profile(tmp_path))
    assert folder.store == folder.root
    assert folder.checkpoints("cola", 3) == folder.root / "checkpoints" / "cola" / "3"
    assert not folder.root.exists(), "nothing is to be written down"


def test_a_run_keeps_the_store_that_it_began_with(folder: RunFolder, plan: Plan, tmp_path: Path) -> None:
    shared = profile(tmp_path, store=str(tmp_path / "shared"))
    stored.settle(folder, plan, shared)
    kept = folder.store
    assert isinstance(kept, Path)
    assert kept.parent == tmp_path / "shared"
    assert kept.name.startswith("small-01234567-")
    for other in (shared, profile(tmp_path), profile(tmp_path, store=str(tmp_path / "another"))):
        stored.settle(RunFolder(folder.root), plan, other)
        assert RunFolder(folder.root).store == kept
    assert list(kept.iterdir()) == [], "looking at it leaves nothing"


def test_one_with_checkpoints_in_its_folder_goes_on_there(folder: RunFolder, plan: Plan, tmp_path: Path) -> None:
    CheckpointStore(folder.root / "checkpoints" / "cola" / "0").save(1, {"seat": b"x"}, metrics={}, best=False)
    stored.settle(folder, plan, profile(tmp_path, store=str(tmp_path / "shared")))
    assert folder.store == folder.root


def test_the_same_spec_is_the_same_run_only_where_its_studies_are(tmp_path: Path) -> None:
    server = profile(tmp_path, study_storage_url="postgresql://optuna@db/optuna")
    other = profile(tmp_path, study_storage_url="postgresql://optuna@db/another")
    names = {stored._name("small-01234567", each) for each in (server, server, other)}
    assert len(names) == 2
    file = profile(tmp_path)
    assert stored._name("small-01234567", file) != stored._name("small-01234567", file), "a file is one machine's"


def test_how_a_bucket_is_reached_may_change(
    folder: RunFolder, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[object] = []
    monkeypatch.setattr(stored, "check", looked_at.append)
    old = profile(tmp_path, store="s3://team/runs")
    stored.settle(folder, plan, old)
    kept = folder.store
    assert isinstance(kept, Address)
    assert kept.url.startswith("s3://team/runs/small-01234567-")
    moved = old.model_copy(update={"s3": old.s3.model_copy(update={"endpoint": "https://new.example.org"})})
    stored.settle(folder, plan, moved)
    assert folder.store == replace(kept, settings={"endpoint": "https://new.example.org"})
    stored.settle(folder, plan, profile(tmp_path, store="s3://other"))
    assert folder.store == replace(kept, settings={"endpoint": "https://new.example.org"})
    assert looked_at == [kept / "probe", folder.store / "probe", folder.store / "probe"]


def test_what_a_run_begins_with_is_brought_to_its_store_once(folder: RunFolder, plan: Plan, tmp_path: Path) -> None:
    CheckpointStore(folder.begin).save(12, {"seat": b"begin"}, metrics={}, best=False)
    begun = plan.model_copy(update={"begin": Begin(checkpoint="old/cola/0@12", digest="d")})
    for _ in range(2):
        stored.settle(folder, begun, profile(tmp_path, store=str(tmp_path / "shared")))
    copies = CheckpointStore(folder.begin)
    assert folder.begin != folder.root / "begin"
    found = copies.newest()
    assert found is not None
    assert (found.step, found.read("seat"), copies.steps()) == (12, b"begin", (12,))


def test_a_store_that_cannot_be_used_is_not_kept(folder: RunFolder, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be used as a store: Not a directory"):
        stored.settle(folder, plan, profile(tmp_path, store=str(tmp_path / "file")))
    assert folder.store == folder.root
