"""What the mirror hears of the tracking server: that its job is to stop."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storage.files import write_whole
from tests.unit.client.fakes import make_plan
from tunery import mirrored
from tunery.cluster.mirror import Mirror
from tunery.runs import RunFolder


class Server:
    """MLflow's client, as far as a turn without news goes."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def get_run(self, _: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(tags=self.tags))


@pytest.mark.parametrize(("tagged", "heard"), [(None, False), ("run-1", True), ("run-1-again-1", False)])
def test_a_tag_asks_one_job_to_stop_and_no_other(tagged: str | None, heard: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run-1")
    write_whole(folder.plan_file, make_plan().model_dump_json().encode())
    mirror, server = Mirror(folder, "http://mlflow", job="run-1"), Server()
    mirror._client, mirror._run = server, "0"  # type: ignore[assignment]
    server.tags = {mirrored.STOP: tagged} if tagged else {}
    mirror.turn()
    assert mirror._problem == ""
    assert mirror.asked_to_stop is heard


def test_news_that_took_long_to_tell_are_followed_by_others_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = [0.0], []
    monkeypatch.setattr("tunery.cluster.mirror.time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(Server):
        def get_run(self, run: str) -> Any:
            asked.append(clock[0])
            clock[0] += 60.0
            return super().get_run(run)

    folder = RunFolder(tmp_path / "run-1")
    write_whole(folder.plan_file, make_plan().model_dump_json().encode())
    mirror = Mirror(folder, "http://mlflow", job="run-1")
    mirror._client, mirror._run = Slow(), "0"  # type: ignore[assignment]
    mirror.turn()
    for _ in range(31):
        clock[0] += 1.0
        mirror.turn()
    assert asked[:2] == [0.0, 90.0]
