"""Runs that start over, that begin with a checkpoint, and trials that are set back to one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.checkpoints import CheckpointStore
from tests.unit.client.fakes import make_plan, wait_for
from tests.unit.test_begin import origin_of_plan
from tunery.client.local import LocalClient
from tunery.errors import ConflictError, InputError, NotFoundError
from tunery.home import Home
from tunery.runs import OF, RunFolder, first_of, generation, name_of

FolderOf = Callable[[str], RunFolder]
NAMES = "expected RUN\\[/STUDY\\]/TRIAL\\[@STEP\\]"


def store_of(folder: RunFolder, trial: int = 0, study: str = "cola") -> CheckpointStore:
    return CheckpointStore(folder.checkpoints(study, trial), keep=9)


def checkpointed(folder: RunFolder, *steps: int, trial: int = 0, study: str = "cola") -> CheckpointStore:
    store = store_of(folder, trial, study)
    for step in steps:
        of = origin_of_plan(make_plan())
        store.save(step, {"seat": f"{step}".encode(), OF: of.to_bytes()}, metrics={}, best=False)
    return store


def end(folder: RunFolder, how: str = "finish") -> None:
    (folder.root / how).touch()
    wait_for(lambda: not folder.driven())


@pytest.fixture
def ended(client: LocalClient, folder_of: FolderOf) -> RunFolder:
    """A finished run with checkpoints of two trials."""
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    end(folder)
    checkpointed(folder, 10, 20, 30)
    checkpointed(folder, 5, trial=1)
    return folder


def test_ids_tell_the_name_and_how_often() -> None:
    assert [name_of(run) for run in ("a-b-01234567", "a-b-01234567.12", "a.2-01234567")] == ["a-b", "a-b", "a.2"]
    assert first_of("a-b-01234567.12") == "a-b-01234567" == first_of("a-b-01234567")
    assert [generation(run) for run in ("a-01234567", "a.3-01234567", "a-01234567.2", "stray.x")] == [1, 1, 2, 1]


def test_a_run_starts_over_beside_the_old_one(client: LocalClient, folder_of: FolderOf, ended: RunFolder) -> None:
    plan = make_plan()
    before = {path: path.read_bytes() for path in ended.root.rglob("*") if path.is_file()}
    for number in (2, 3):
        handle = client.send(plan, fresh=True)
        assert (handle.run_id, handle.outcome) == (f"{plan.run_id}.{number}", "started")
        assert client.plan(handle.run_id).run_id == handle.run_id
        end(folder_of(handle.run_id))
    assert {path: path.read_bytes() for path in ended.root.rglob("*") if path.is_file()} == before
    assert client.find("glue") == f"{plan.run_id}.3", "a name is of the newest"
    assert client.find(plan.run_id) == plan.run_id
    assert client.find("glu") == f"{plan.run_id}.3"
    assert client.send(plan).run_id == f"{plan.run_id}.3", "submitting again finds the newest"
    assert len(client.runs()) == 3
    with pytest.raises(ConflictError, match=r"train.epochs: +\(not set\) -> 5"):
        client.send(make_plan(train={"epochs": 5}), fresh=True)


def test_nothing_starts_over_beside_itself(client: LocalClient) -> None:
    plan = make_plan()
    assert client.send(plan, fresh=True).run_id == plan.run_id, "the first time there is nothing to start over"
    with pytest.raises(ConflictError, match=f"run {plan.run_id} of the same spec is under way; nothing was started"):
        client.send(plan, fresh=True)
    with pytest.raises(ConflictError, match="is under way"):
        client.resume(plan.run_id, fresh=True)
    assert len(client.runs()) == 1


def test_a_resumed_run_starts_over_under_its_own_profile(home: Home, client: LocalClient, folder_of: FolderOf) -> None:
    plan = make_plan()
    LocalClient(home, driver_command=client._command, profile="lab").send(plan)
    end(folder_of(plan.run_id))
    handle = client.resume(plan.run_id, fresh=True)
    folder = folder_of(handle.run_id)
    wait_for((folder.root / "starts").exists)
    assert (folder.root / "starts").read_text().split()[1:] == ["--profile", "lab"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("glue/0", "cola/0@30"),
        ("glue/cola/0", "cola/0@30"),
        ("glue/cola/0@20", "cola/0@20"),
        ("glue/1@5", "cola/1@5"),
    ],
)
def test_a_checkpoint_is_named_by_run_study_trial_and_step(
    client: LocalClient, ended: RunFolder, text: str, name: str
) -> None:
    found = client.checkpoint(text)
    assert found.name == f"{ended.run_id}/{name}"
    assert found.checkpoint.read("seat").decode() == name.partition("@")[2]
    short = text.removeprefix("glue/")
    assert client.checkpoint(short, of=ended.run_id) == found
    assert client.checkpoint(text, of=ended.run_id) == found
    assert client.checkpoint(found.checkpoint.where) == found, "its folder names it too"


def test_a_folder_elsewhere_is_a_checkpoint_too(client: LocalClient, tmp_path: Path) -> None:
    checkpointed(RunFolder(tmp_path / "copy"), 8)
    folder = tmp_path / "copy" / "checkpoints" / "cola" / "0" / "000001-step8"
    found = client.checkpoint(str(folder))
    assert (found.name, found.run, found.checkpoint.step) == (str(folder), "", 8)
    with pytest.raises(NotFoundError, match=r"no checkpoint's folder: it has no manifest.json; it holds: 000001-step8"):
        client.checkpoint(str(folder.parent))


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("glue/cola/0@25", NotFoundError, r"no checkpoint of step 25 in .*; there are: 10, 20, 30"),
        ("glue/cola/7", NotFoundError, r"no checkpoint of trial 7 in study cola of run glue-\w+; trials .*: 0, 1"),
        ("glue/rte/0", NotFoundError, r"has no checkpoints of a study 'rte'; known: cola"),
        ("glee/0", NotFoundError, r"no run 'glee'; did you mean 'glue'"),
        ("glue", InputError, rf"'glue' names no checkpoint; {NAMES}"),
        ("glue/cola/best", InputError, rf"names no checkpoint; {NAMES}"),
        ("0@20", InputError, rf"names a trial and no run; {NAMES}"),
        ("", InputError, rf"names no checkpoint; {NAMES}"),
        ("./nowhere", NotFoundError, r"nowhere is no checkpoint's folder: it has no manifest.json$"),
    ],
)
def test_a_wrong_name_is_told_with_what_there_is(
    client: LocalClient, ended: RunFolder, text: str, kind: type[Exception], said: str
) -> None:
    assert ended.plan_file.exists()
    with pytest.raises(kind, match=said):
        client.checkpoint(text)


def test_a_trial_of_several_studies_needs_the_studys_name(client: LocalClient, ended: RunFolder) -> None:
    checkpointed(ended, 4, study="rte")
    with pytest.raises(InputError, match=r"name one, as in glue-\w+/cola/0; there are: cola, rte"):
        client.checkpoint("glue/0")


def test_a_damaged_checkpoint_is_named_with_the_next_good_one(client: LocalClient, ended: RunFolder) -> None:
    damaged = Path(store_of(ended).at(30).where)
    (damaged / "seat").write_bytes(b"XX")
    with pytest.raises(InputError, match=r"/cola/0@30 is damaged: .*SHA-256 differs.*newest good one is of step 20"):
        client.checkpoint("glue/0@30")
    with pytest.raises(InputError, match=r"damaged: .*SHA-256 differs.*the newest good one beside it: .*000002-step"):
        client.checkpoint(str(damaged))
    found = client.checkpoint("glue/0")
    assert found.checkpoint.step == 20
    assert str(damaged) in found.passed_over[0]
    for step in (10, 20):
        (Path(store_of(ended).at(step).where) / "seat").unlink()
    with pytest.raises(NotFoundError, match=r"/cola/0 has no good checkpoint; .*000003-step30"):
        client.checkpoint("glue/0")


def test_a_run_begins_with_a_copy_and_is_found_by_it(
    client: LocalClient, folder_of: FolderOf, ended: RunFolder
) -> None:
    plan, found = make_plan(), client.checkpoint("glue/0@20")
    handle = client.send(plan, begin=found)
    assert (handle.run_id, handle.outcome) == (f"{ended.run_id}.2", "started"), "another run than that of the spec"
    folder = folder_of(handle.run_id)
    copy = CheckpointStore(folder.begin).newest()
    assert copy is not None
    assert (copy.step, copy.read("seat")) == (20, b"20")
    assert json.loads(folder.plan_file.read_bytes())["begin"]["checkpoint"] == f"{ended.run_id}/cola/0@20"
    assert client.send(plan, begin=client.checkpoint(found.checkpoint.where)).outcome == "attached"
    end(folder)
    assert client.send(plan, begin=found).run_id == handle.run_id
    assert client.send(plan).run_id == ended.run_id, "without the checkpoint it is the other run"
    third = client.send(plan, begin=client.checkpoint("glue-" + ended.run_id[5:] + "/0@10"))
    assert third.run_id == f"{ended.run_id}.3"
    end(folder_of(third.run_id))
    again = client.resume(handle.run_id, fresh=True)
    assert (again.run_id, again.outcome) == (f"{ended.run_id}.4", "started")
    assert client.plan(again.run_id).begin == client.plan(handle.run_id).begin, "it starts over as it had started"
    assert CheckpointStore(folder_of(again.run_id).begin).steps() == (20,)


def test_a_checkpoint_that_does_not_fit_starts_nothing(client: LocalClient, ended: RunFolder) -> None:
    wide = make_plan(name="wide", tuner={"method": "lora", "rank": 32, "target_modules": ("query", "value")})
    with pytest.raises(InputError, match=r"tuner\.rank is 8 in the checkpoint, here it is 32"):
        client.send(wide, begin=client.checkpoint("glue/0"))
    assert [state.run_id for state in client.runs()] == [ended.run_id]


@pytest.fixture
def stopped(client: LocalClient, folder_of: FolderOf) -> RunFolder:
    """A run whose driver died while its trial was running, with three checkpoints."""
    plan = make_plan()
    client.send(plan)
    folder = folder_of(plan.run_id)
    wait_for(lambda: folder.state_file.exists() and folder.state().status == "running")
    pid = folder.lock.pid()
    assert pid is not None
    os.kill(pid, 9)
    wait_for(lambda: not folder.driven())
    checkpointed(folder, 10, 20, 30)
    return folder


def test_a_trial_is_set_back_and_its_newer_checkpoints_stay(client: LocalClient, stopped: RunFolder) -> None:
    handle = client.resume(stopped.run_id, begin=client.checkpoint("0@20", of=stopped.run_id))
    assert (handle.run_id, handle.outcome) == (stopped.run_id, "resumed")
    store = store_of(stopped)
    newest = store.newest()
    assert newest is not None
    assert newest.step == 20
    assert [path.name[-14:] for path in (stopped.root / "checkpoints" / "cola" / "0").glob("set-aside-*")] == [
        "-000003-step30"
    ]
    with pytest.raises(ConflictError, match=f"under way: stop it first \\(platform stop {stopped.run_id}\\)"):
        client.resume(stopped.run_id, begin=client.checkpoint("0@10", of=stopped.run_id))
    assert store.newest() == newest


def test_what_cannot_be_set_back_is_refused(client: LocalClient, ended: RunFolder, folder_of: FolderOf) -> None:
    with pytest.raises(ConflictError, match=r"trial cola/0 of run .* is finished and its study has counted it"):
        client.resume(ended.run_id, begin=client.checkpoint("glue/0@10"))
    other = make_plan(name="other")
    client.send(other)
    end(folder_of(other.run_id), "stop")
    with pytest.raises(InputError, match=rf"is no checkpoint of run {other.run_id}.*--fresh --from glue-\w+/cola/0@10"):
        client.resume(other.run_id, begin=client.checkpoint("glue/0@10"))
    assert store_of(ended).steps() == (30, 20, 10)
