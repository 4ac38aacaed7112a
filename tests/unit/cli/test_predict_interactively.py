"""`platform predict --interactive` at a real terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.inference.conftest import make_adapter, make_base
from tunery.cli import _ask, _history
from tunery.cli._history import KeptHistory
from tunery.cli.output import Format
from tunery.home import Home
from tunery.inference.inputs import Reader

UP, LEFT, BACKSPACE, CTRL_C, CTRL_D = "\x1b[A", "\x1b[D", "\x7f", "\x03", "\x04"
CODES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
ANSWER = r"(\w+)  (0\.\d{4})  \(\d+ ms\)"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"), bert=True)


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapter"), base)


class Terminal:
    """A command at a pseudo-terminal, as a user sees it."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunery.cli.app", "predict", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""
        self._raw = b""

    def type(self, keys: str) -> None:
        self.shown, self._raw = "", b""
        os.write(self._ours, keys.encode())

    def wait_for(self, pattern: str, *, raw: bool = False, limit_s: float = 120) -> re.Match[str]:
        """What is shown since the last key (`raw`: with the codes); fails where the pattern does not come."""
        deadline = time.monotonic() + limit_s
        while (found := re.search(pattern, self.shown if raw else CODES.sub("", self.shown))) is None:
            if not select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
                pytest.fail(f"no {pattern!r} within {limit_s:.0f} s in {self.shown!r}")
            try:
                self._raw += os.read(self._ours, 65536)
            except OSError:
                pytest.fail(f"it has ended without {pattern!r}: {self.shown!r}")
            self.shown = self._raw.decode(errors="ignore")
        return found

    def ends(self) -> int:
        with contextlib.suppress(OSError):  # what the other side's closing is here
            while select.select([self._ours], [], [], 120)[0] and os.read(self._ours, 65536):
                pass
        os.close(self._ours)
        return self._process.wait(60)


def kept() -> list[str]:
    return [json.loads(line) for line in (Home.from_environment().root / _history.FILE).read_text().splitlines()]


def test_a_session_at_a_terminal_and_the_next_one(folder: Path) -> None:
    terminal = Terminal(str(folder), "--interactive")
    terminal.wait_for("Ctrl-D ends")
    terminal.wait_for("text>")
    terminal.type("the cat sat\r")
    first = terminal.wait_for(ANSWER)
    assert first[1] in ("acceptable", "unacceptable")
    terminal.wait_for(r"ms\)[\s\S]*text>")

    terminal.type("\r")
    terminal.wait_for(r"nothing was typed[\s\S]*text>")

    # A Chinese letter is two columns wide and three bytes long, and one press of a key.
    terminal.type("房间很干净")
    terminal.wait_for("净")
    terminal.type(LEFT)
    terminal.wait_for(r"\x1b\[2D|\x08\x08", raw=True)
    terminal.type(LEFT + BACKSPACE + "最\r")
    chinese = terminal.wait_for(ANSWER)
    assert kept() == ["the cat sat", "房间最干净"]
    terminal.wait_for(r"ms\)[\s\S]*text>")

    terminal.type("no such")
    terminal.wait_for("such")
    terminal.type(CTRL_C)
    terminal.wait_for("text>")
    terminal.type(UP + "\r")
    assert terminal.wait_for(ANSWER)[0].split()[:2] == chinese[0].split()[:2], "the last text, not the cleared one"
    terminal.wait_for(r"ms\)[\s\S]*text>")
    terminal.type(CTRL_D)
    assert terminal.ends() == 0
    file = Home.from_environment().root / _history.FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    again = Terminal(str(folder), "-i", "-o", "json")
    again.wait_for("text>")
    again.type(UP + UP + "\r")
    line = again.wait_for(r"\{.*\}")
    assert f"{json.loads(line[0])['score']:.4f}" == first[2], "what was typed in the session before"
    assert list(json.loads(line[0])) == ["label", "score", "scores", "latency_ms"]
    again.wait_for(r"\}[\s\S]*text>")
    again.type(CTRL_D)
    assert again.ends() == 0


def test_a_pair_is_asked_for_both_and_may_be_given_up(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "pairs", base, labels=(), task="stsb")
    terminal = Terminal(str(folder), "--interactive")
    terminal.wait_for("a text a line, then its second text")
    terminal.wait_for("text>")
    terminal.type("a cat\r")
    terminal.wait_for("text2>")
    terminal.type(CTRL_C)
    terminal.wait_for("text>")
    terminal.type("a dog\r")
    terminal.wait_for("text2>")
    terminal.type("\r")
    terminal.wait_for(r"the second text is empty[\s\S]*text>")
    terminal.type("a dog\r")
    terminal.wait_for("text2>")
    terminal.type("a cat\r")
    terminal.wait_for(r"\d\.\d{4}  \(\d+ ms\)[\s\S]*text>")
    terminal.type(CTRL_D)
    assert terminal.ends() == 0


class Moody:
    """A model that fails, and then does not."""

    name = "moody"

    def __init__(self) -> None:
        self.moods: list[BaseException | None] = [RuntimeError("out of memory"), None]

    def __call__(self, text: str, _: str | None) -> Any:
        from tunery.inference.predictor import Prediction

        mood = self.moods.pop(0)
        if mood is not None:
            raise mood
        return Prediction("good", 0.5, {"good": 0.5, text: 0.5})


def test_no_text_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\xfe\n\ntwo\r\n")))
    model: Any = Moody()
    _ask.ask(model, Reader(None, (("text", "text2"),)), Format.TABLE)
    captured = capsys.readouterr()
    assert "no answer: RuntimeError: out of memory" in captured.err
    assert "the text is not valid Unicode" in captured.err
    assert "the text is empty" in captured.err
    assert re.fullmatch(r"good  0\.5000  \(\d+ ms\)\n", captured.out)


def test_a_history_is_cut_and_survives_what_is_not_its_own(tmp_path: Path) -> None:
    file = tmp_path / "home" / "history"
    problems: list[str] = []
    history = KeptHistory(file, problems.append)
    assert list(history.load_history_strings()) == []
    file.parent.mkdir()
    file.write_text("".join(f'"{number}"\n' for number in range(2 * _history.LONGEST)) + '"cut off\n{}\n"last"\n')
    assert next(iter(history.load_history_strings())) == "last"
    assert len(file.read_text().splitlines()) == _history.LONGEST
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    history.store_string("最后\n一行")
    assert next(iter(history.load_history_strings())) == "最后\n一行"
    file.unlink()
    file.mkdir()
    history.store_string("a")
    history.store_string("b")
    assert len(problems) == 1
    assert "is not kept" in problems[0]
    nowhere = KeptHistory(file / "below" / "a" / "folder" / "x", problems.append)
    (file / "below").touch()
    assert list(nowhere.load_history_strings()) == []
    assert "cannot be read" in problems[-1]
