"""The registry on real sqlite databases: races between processes, kills in the middle of a promotion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import repeat
from pathlib import Path

import pytest

from storage.errors import (
    ChampionMovedError,
    NotRegisteredError,
    RegistryError,
    RegistryUnreachableError,
)
from storage.mlflow_connection import connect
from storage.promotions import Promotion, holders
from storage.registry import Registry

MODEL = "glue-cola"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with three versions of a model, each with its files. Laid out once: that takes seconds."""
    folder = tmp_path_factory.mktemp("registry")
    client = connect(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("glue", artifact_location=(folder / "artifacts").as_uri())
    adapter = folder / "adapter"
    adapter.mkdir()
    for number in (1, 2, 3):
        run_id = client.create_run(experiment).info.run_id
        (adapter / "tunery.json").write_text(f'{{"version": {number}}}')
        client.log_artifacts(run_id, str(adapter), "adapter")
        Registry(f"sqlite:///{folder}/mlflow.db").register(
            MODEL, run_id=run_id, artifact_path="adapter", tags={"n": str(number)}
        )
    return folder / "mlflow.db"


@pytest.fixture
def uri(filled: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(filled, tmp_path / 'mlflow.db')}"


@pytest.fixture
def registry(uri: str) -> Registry:
    return Registry(uri, clock=lambda: 1_000.0)


def promote(registry: Registry, version: str, why: str = "") -> Promotion:
    return registry.promote(MODEL, version, by="me", why=why)


def test_registering_twice_gives_the_same_version(registry: Registry) -> None:
    first = registry.version(MODEL, 1)
    again = registry.register(MODEL, run_id=first.run_id, artifact_path="adapter", tags={"n": "other"})
    assert again == first
    assert [version.tags["n"] for version in registry.versions(MODEL)] == ["1", "2", "3"]


def test_a_run_can_be_registered_as_two_models(registry: Registry) -> None:
    run_id = registry.version(MODEL, 1).run_id
    other = registry.register("other", run_id=run_id, artifact_path="adapter", tags={})
    assert (other.model, other.version, other.run_id) == ("other", "1", run_id)
    assert registry.models() == (MODEL, "other")


def test_promotions_and_refusals_are_kept_in_order(registry: Registry) -> None:
    assert registry.champion(MODEL) is None
    promote(registry, "1", "first")
    registry.refuse(MODEL, "2", by="gate", why="no gain", objective="mcc", from_value=0.5, to_value=0.4)
    promote(registry, "3", "better")
    champion = registry.champion(MODEL)
    assert champion is not None
    assert (champion.version, champion.aliases) == ("3", ("champion",))
    told = [(p.verdict, p.from_version, p.to_version, p.why) for p in registry.history(MODEL)]
    assert told == [
        ("promoted", None, "1", "first"),
        ("refused", "1", "2", "no gain"),
        ("promoted", "1", "3", "better"),
    ]
    refusal = registry.history(MODEL)[1]
    assert (refusal.by, refusal.at_ms, refusal.objective, refusal.from_value, refusal.to_value) == (
        "gate", 1_000_000, "mcc", 0.5, 0.4,
    )  # fmt: skip


def test_order_is_held_by_number_and_not_by_the_clock(uri: str) -> None:
    for clock, version in ((9_000.0, "1"), (1.0, "2"), (5_000.0, "3")):
        promote(Registry(uri, clock=repeat(clock).__next__), version)
    assert [move.to_version for move in Registry(uri).history(MODEL)] == ["1", "2", "3"]


def test_promoting_the_champion_again_notes_nothing(registry: Registry) -> None:
    promote(registry, "1")
    promote(registry, "1")
    assert len(registry.history(MODEL)) == 1


def test_a_version_that_is_not_there_is_not_promoted(registry: Registry) -> None:
    promote(registry, "1")
    with pytest.raises(NotRegisteredError, match=r"no version 9; it has: 1@champion, 2, 3"):
        promote(registry, "9")
    assert registry.resolve(MODEL).version == "1"


def test_the_alias_moves_only_from_the_expected_holder(registry: Registry) -> None:
    promote(registry, "1")
    with pytest.raises(ChampionMovedError, match="is version 1 by now, not none"):
        registry.promote(MODEL, "2", by="", why="", expected=None)
    with pytest.raises(ChampionMovedError):
        registry.refuse(MODEL, "2", by="", why="", expected="3")
    registry.promote(MODEL, "2", by="", why="", expected="1")
    assert registry.resolve(MODEL).version == "2"


def test_rollback_goes_one_back_each_time(registry: Registry) -> None:
    with pytest.raises(NotRegisteredError, match="nothing to roll"):
        registry.rollback(MODEL)
    for version in ("1", "2", "3"):
        promote(registry, version)
    registry.refuse(MODEL, "1", by="", why="")
    assert registry.rollback(MODEL, by="me", why="regression").to_version == "2"
    assert registry.rollback(MODEL).to_version == "1"
    with pytest.raises(NotRegisteredError, match="nothing to roll"):
        registry.rollback(MODEL)
    promote(registry, "3")
    assert registry.rollback(MODEL).to_version == "1"
    assert [move.verdict for move in registry.history(MODEL)].count("rollback") == 3


def test_rollback_passes_over_deleted_versions(registry: Registry, uri: str) -> None:
    for version in ("1", "2", "3"):
        promote(registry, version)
    connect(uri).delete_model_version(MODEL, "2")
    assert registry.rollback(MODEL).to_version == "1"


def test_rollback_of_an_alias_moved_by_other_means(registry: Registry, uri: str) -> None:
    promote(registry, "1")
    connect(uri).set_registered_model_alias(MODEL, "champion", "3")
    assert registry.rollback(MODEL).to_version == "1"


def test_aliases_have_each_their_own_past(registry: Registry) -> None:
    promote(registry, "1")
    registry.promote(MODEL, "2", "staging", by="", why="")
    promote(registry, "3")
    assert registry.rollback(MODEL).to_version == "1"
    assert registry.resolve(f"{MODEL}@staging").version == "2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glue-cole", "no model 'glue-cole' is registered; did you mean 'glue-cola'?"),
        (f"{MODEL}/7", "model 'glue-cola' has no version 7; it has: 1, 2, 3"),
        (f"{MODEL}/x", "'x' is no version"),
        (f"{MODEL}@champion", "has no alias 'champion'"),
        (MODEL, "has no alias 'champion'"),
        ("a'b", "is registered"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(registry: Registry, name: str, message: str) -> None:
    with pytest.raises(NotRegisteredError) as caught:
        registry.resolve(name)
    assert message in str(caught.value)


def test_download_gives_the_version_s_own_files(registry: Registry, tmp_path: Path) -> None:
    folder = registry.download(registry.version(MODEL, 2), tmp_path / "here")
    assert (folder / "tunery.json").read_text() == '{"version": 2}'


def test_download_refuses_what_tunery_did_not_register(registry: Registry, uri: str, tmp_path: Path) -> None:
    connect(uri).create_registered_model("foreign")
    made = connect(uri).create_model_version("foreign", "/etc", run_id=registry.version(MODEL, 1).run_id)
    with pytest.raises(RegistryError, match="not an adapter of tunery"):
        registry.download(registry.version("foreign", made.version), tmp_path)


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(RegistryUnreachableError, match=r"http://127\.0\.0\.1:9 does not answer"):
        Registry("http://127.0.0.1:9").champion(MODEL)


PROMOTE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from storage.registry import Registry
def promote(version):
    Registry(sys.argv[1]).promote("glue-cola", version, by=version, why="race")
with ThreadPoolExecutor(4) as pool:
    list(pool.map(promote, sys.argv[2]))
"""


def test_eight_promotions_at_once_make_one_chain(uri: str) -> None:
    """Two processes of four threads each: eight processes would spend a minute importing."""
    processes = [
        subprocess.Popen([sys.executable, "-c", PROMOTE, uri, v], env=_environment()) for v in ("1231", "2312")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    moves = Registry(uri).history(MODEL)
    assert [move.from_version for move in moves] == [None, *(move.to_version for move in moves[:-1])]
    assert Registry(uri).resolve(MODEL).version == moves[-1].to_version


KILLED = """
import os, signal, sys
from storage.registry import Registry
registry = Registry(sys.argv[1])
client, left = registry._client, int(sys.argv[2])
WRITES = {"set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_tag"}
def counted(call):
    def counting(*arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return call(*arguments)
    return counting
for name in WRITES:
    setattr(client, name, counted(getattr(client, name)))
registry.promote("glue-cola", "2", by="killed", why="")
"""


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_promotion_killed_before_any_write_leaves_the_alias_old_or_new(uri: str, writes: int) -> None:
    registry = Registry(uri)
    promote(registry, "1")
    process = subprocess.run([sys.executable, "-c", KILLED, uri, str(writes)], env=_environment(), timeout=120)
    assert process.returncode == (-9 if writes < 3 else 0)

    moved = writes >= 2
    assert registry.resolve(MODEL).version == ("2" if moved else "1")
    assert [move.to_version for move in registry.history(MODEL)] == (["1", "2"] if moved else ["1"])

    promote(registry, "3")  # whoever comes next puts the notes in order
    moves = registry.history(MODEL)
    assert [move.to_version for move in moves] == (["1", "2", "3"] if moved else ["1", "3"])
    assert moves[-1].from_version == ("2" if moved else "1")
    assert registry.rollback(MODEL).to_version == ("2" if moved else "1")


def test_holders_of_an_empty_history() -> None:
    assert holders([], "champion", None) == []


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
