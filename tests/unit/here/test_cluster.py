"""What `up`, `down` and `ps` do, with small servers in place of the large ones that tests/ray/test_cluster.py has."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.unit.client.fakes import wait_for
from tunery.cli import extras
from tunery.cli.app import run
from tunery.errors import ConflictError, UnreachableError
from tunery.here import cluster, postgres
from tunery.here.cluster import Brought, Seen
from tunery.here.kept import Kept, load
from tunery.here.layout import Layout
from tunery.here.part import Launch, Part
from tunery.here.parts import port_names
from tunery.here.share import Share
from tunery.home import Home

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""
NAMES = ["mlflow", "ray-head", "ray-node-1"]
FAULTY: set[str] = set()
"""Parts that end at their start."""


class Small:
    """See `tunery.here.part.Part`."""

    start_s, starts, end_s = 30.0, 2, 10.0
    end_signal = signal.SIGTERM

    def __init__(self, name: str, port: int, log: Path) -> None:
        self.name = self.title = name
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log = log

    def prepare(self) -> None:
        pass

    def launch(self) -> Launch:
        code = "raise SystemExit('a part of this part is missing')" if self.name in FAULTY else SERVER
        return Launch([sys.executable, "-c", code, str(self.port)], os.environ, self.log.parent)

    def trouble(self) -> str:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError as error:
            return str(error)
        return ""


def small(layout: Layout, kept: Kept, shares: tuple[Share, ...]) -> tuple[Part, ...]:
    assert len(shares) == 1 + kept.workers
    names = port_names(kept)
    return tuple(Small(name, next(iter(kept.ports[name].values())), layout.log(name)) for name in names)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(cluster, "parts", small)
    monkeypatch.setattr(postgres, "programs", lambda: None)
    monkeypatch.setattr(extras, "missing", lambda _: ())
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    FAULTY.clear()
    made = Home(tmp_path / "home")
    yield made
    cluster.down(made, print)


def up(home: Home, workers: int | None = None, told: list[str] | None = None) -> Brought:
    say = print if told is None else told.append
    return cluster.up(home, say, workers=workers, cpus=4, random=Random(3))


def pids(seen: tuple[Seen, ...]) -> dict[str, int | None]:
    return {each.part: each.pid for each in seen}


def killed(home: Home, name: str) -> None:
    kept = load(Layout.of(home))
    assert kept is not None
    process = kept.processes[name]
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not process.lives)


def test_a_second_up_starts_nothing_and_down_ends_all(home: Home) -> None:
    first = up(home, workers=1)
    assert list(first.started) == NAMES
    assert [each.condition for each in first.seen] == ["well"] * 3
    second = up(home)
    assert second.started == ()
    assert pids(second.seen) == pids(first.seen)
    assert cluster.down(home, print) == tuple(reversed(NAMES)), "what uses another ends first"
    assert [each.condition for each in cluster.look(home)] == ["down"] * 3
    assert cluster.down(home, print) == ()


def test_one_that_has_died_is_started_again_alone_where_it_was(home: Home) -> None:
    first = up(home, workers=1)
    killed(home, "mlflow")
    gone = cluster.look(home)[0]
    assert (gone.condition, gone.pid) == ("gone", None)
    assert gone.trouble == f"process {pids(first.seen)['mlflow']} is not there any more"
    again = up(home)
    assert again.started == ("mlflow",)
    assert [each.address for each in again.seen] == [each.address for each in first.seen]
    assert pids(again.seen)["mlflow"] != pids(first.seen)["mlflow"]
    assert {**pids(again.seen), "mlflow": 0} == {**pids(first.seen), "mlflow": 0}


def test_nodes_follow_their_head(home: Home) -> None:
    first, told = up(home, workers=1), list[str]()
    killed(home, "ray-head")
    again = up(home, told=told)
    assert again.started == ("ray-head", "ray-node-1")
    assert told[0] == "what was left of ray-node-1 has been ended"
    assert pids(again.seen)["mlflow"] == pids(first.seen)["mlflow"]


def test_one_that_does_not_come_up_is_told_with_its_last_words_and_the_others_stay(home: Home) -> None:
    FAULTY.add("ray-head")
    told = list[str]()
    with pytest.raises(
        UnreachableError, match=r"ray-head has ended at its start; .*\n.*a part of this part is missing"
    ):
        up(home, workers=1, told=told)
    assert sum("starting it again" in line for line in told) == 1, "it had two attempts"
    assert [each.condition for each in cluster.look(home)] == ["well", "gone", "down"]
    FAULTY.clear()
    assert up(home).started == ("ray-head", "ray-node-1")


def test_one_that_does_not_answer_is_replaced_after_its_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = up(home)
    os.kill(pids(first.seen)["ray-head"] or 0, signal.SIGSTOP)
    # Its socket still takes connections: what is asked has to be answered.
    deaf = {pids(first.seen)["ray-head"]}
    monkeypatch.setattr(Small, "start_s", 0.3)
    ask = Small.trouble

    def trouble(self: Small) -> str:
        kept = load(Layout.of(home))
        assert kept is not None
        return "silent" if kept.processes[self.name].pid in deaf else ask(self)

    monkeypatch.setattr(Small, "trouble", trouble)
    told = list[str]()
    monkeypatch.setattr(Small, "end_s", 0.2)
    again = up(home, told=told)
    assert again.started == ("ray-head",)
    assert told[0] == "ray-head is there, and not well (silent): waiting for it"
    assert "ray-head is not well after 0 s: silent" in told[1]


def test_another_size_needs_down_first_and_loses_nothing(home: Home) -> None:
    first = up(home, workers=1)
    with pytest.raises(ConflictError, match="`platform down` first"):
        up(home, workers=0)
    cluster.down(home, print)
    again = up(home, workers=0)
    assert again.started == tuple(NAMES[:2])
    assert again.seen[0].address == first.seen[0].address


def test_the_commands(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ps"]) == 0
    assert "nothing was ever up here" in capsys.readouterr().out
    assert run(["down"]) == 0
    assert "nothing is up: nothing was ended" in capsys.readouterr().out
    assert run(["up", "--workers", "1", "--cpus", "2"]) == 0
    out, err = capsys.readouterr()
    assert "next: platform submit SPEC --profile here" in out
    assert "starting ray-node-1, at 127.0.0.1:" in err
    assert run(["up", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["started"], document["database"]) == ([], "sqlite")
    assert run(["ps", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts"] == document["parts"]
    assert [part["part"] for part in document["parts"]] == NAMES
    assert {part["condition"] for part in document["parts"]} == {"well"}
    killed(home, "mlflow")
    assert run(["ps"]) == 6
    out = capsys.readouterr().out
    assert "gone: process" in out
    assert "next: platform up" in out
    assert run(["down", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ended": ["ray-node-1", "ray-head"]}
