"""Copies of models on a node's own disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from storage import near as module
from storage.errors import StorageError
from storage.near import near

ASK = """
import sys
from pathlib import Path
from storage.near import near
print(near(Path(sys.argv[1]), Path(sys.argv[2])).folder)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As a hub's cache has it: links to files elsewhere."""
    blob, folder = tmp_path / "blobs" / "0a1b", tmp_path / "snapshots" / "c0ffee"
    blob.parent.mkdir()
    folder.mkdir(parents=True)
    blob.write_bytes(os.urandom(4_000_000))
    (folder / "model.safetensors").symlink_to(blob)
    (folder / "config.json").write_text("{}")
    return folder


def copies(root: Path) -> list[Path]:
    return [each for each in root.iterdir() if (each / "config.json").exists() and each.suffix != ".part"]


def test_many_processes_that_ask_at_once_get_one_copy(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    asked = [
        subprocess.Popen([sys.executable, "-c", ASK, str(model), str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = {process.communicate()[0].strip() for process in asked}
    assert [process.returncode for process in asked] == [0] * 6
    (copy,) = copies(root)
    assert said == {str(copy)}
    weights = copy / "model.safetensors"
    assert not weights.is_symlink()
    assert weights.read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_copy_is_made_once_and_anew_when_the_model_has_changed(model: Path, tmp_path: Path) -> None:
    first = near(model, tmp_path / "scratch")
    made = (first.folder / "config.json").stat().st_ino
    assert (near(model, tmp_path / "scratch").folder / "config.json").stat().st_ino == made
    (model / "config.json").write_text('{"changed": true}')
    assert near(model, tmp_path / "scratch").folder != first.folder
    assert len(copies(tmp_path / "scratch")) == 2


def test_what_a_killed_process_has_left_is_made_whole(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    left = root / f"{module._name(model)}.part"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert (near(model, root).folder / "config.json").read_text() == "{}"
    assert len(copies(root)) == 1


def test_copies_that_nobody_holds_make_room(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "scratch"
    usage = namedtuple("usage", "free")

    def room_for_one(_: Path) -> usage:
        return usage(4_500_000 * (1 - len(copies(root))))

    monkeypatch.setattr("storage.near.shutil.disk_usage", room_for_one)
    held = near(model, root)
    foreign = [root / "data", root / "run-0123456789abcdef"]
    for each in foreign:
        each.mkdir()
        os.utime(each, (0, 0))
    other = shutil.copytree(model, tmp_path / "other")
    with pytest.raises(StorageError, match=r"other takes 4,000,002 bytes, and .* has 0 free beside the copies in use"):
        near(other, root)
    assert copies(root) == [held.folder], "what is held stays, and nothing half is left"
    held.close()
    assert near(other, root).folder.is_dir()
    assert not held.folder.exists()
    assert all(each.is_dir() for each in foreign), "what is not ours stays"


def test_the_copy_that_was_asked_for_last_makes_room_last(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "scratch"
    first = near(model, root)
    second = near(shutil.copytree(model, tmp_path / "second"), root)
    os.utime(first.folder, (1, 1))
    os.utime(second.folder, (2, 2))
    first.close()
    second.close()
    near(model, root).close()
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("storage.near.shutil.disk_usage", lambda _: usage(4_500_000 * (2 - len(copies(root)))))
    third = near(shutil.copytree(model, tmp_path / "third"), root)
    assert set(copies(root)) == {first.folder, third.folder}


def test_a_copy_that_cannot_be_made_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, part: Path) -> None:
        part.mkdir()
        (part / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.near.shutil.copytree", full)
    with pytest.raises(StorageError, match=r"cannot be copied to .*No space left on device"):
        near(model, tmp_path / "scratch")
    assert not [each for each in (tmp_path / "scratch").iterdir() if each.is_dir()]
