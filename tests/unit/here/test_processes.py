"""Processes that are known again and ended by their ids, and others that are left alone. All are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.unit.client.fakes import wait_for
from tunery.here import processes
from tunery.here.processes import MARK, Remembered, end, remember

Begin = Callable[..., subprocess.Popen[bytes]]
WAIT = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {WAIT!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def begin() -> Iterator[Begin]:
    with ExitStack() as stack:

        def make(code: str, mark: str = "") -> subprocess.Popen[bytes]:
            environment = {**os.environ, **({MARK: mark} if mark else {})}
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield make


@pytest.fixture
def mark() -> str:
    return f"{uuid.uuid4().hex}/part"


def test_a_number_that_another_process_has_is_not_the_same_process(begin: Begin, mark: str) -> None:
    other = begin(WAIT)
    known = remember(other.pid)
    assert known.lives
    boot, _, ticks = known.started.rpartition("/")
    for started in (f"{boot}/{int(ticks) - 1}", f"another-boot/{ticks}"):
        recycled = Remembered(pid=other.pid, started=started)
        assert not recycled.lives
        assert not end(recycled, mark, sign=signal.SIGTERM, limit_s=1)
    assert other.poll() is None, "it was never ours"


def test_what_is_dead_and_not_yet_buried_does_not_live(begin: Begin) -> None:
    child = begin(WAIT)
    known = remember(child.pid)
    child.kill()
    wait_for(lambda: not known.lives)
    assert remember(child.pid) == known, "nobody has waited for it"
    assert not remember(child.pid).lives
    child.wait()
    with pytest.raises(ProcessLookupError):
        remember(child.pid)


def test_all_that_it_started_ends_with_it_and_nothing_else(begin: Begin, mark: str) -> None:
    other, parent = begin(WAIT), begin(PARENT, mark)
    assert parent.stdout is not None
    child = remember(int(parent.stdout.readline()))
    assert end(remember(parent.pid), mark, sign=signal.SIGTERM, limit_s=10)
    assert not child.lives
    assert parent.wait() == -signal.SIGTERM
    assert other.poll() is None
    assert not end(None, mark, sign=signal.SIGTERM, limit_s=10), "there is nothing left to end"


def test_an_orphan_in_a_session_of_its_own_is_found(begin: Begin, mark: str) -> None:
    parent = begin(PARENT, mark)
    assert parent.stdout is not None
    child, known = remember(int(parent.stdout.readline())), remember(parent.pid)
    parent.kill()
    parent.wait()
    assert child.lives
    assert end(known, mark, sign=signal.SIGTERM, limit_s=10)
    assert not child.lives


def test_one_that_does_not_heed_is_killed_after_the_limit(begin: Begin, mark: str) -> None:
    deaf = begin(DEAF, mark)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    began = time.monotonic()
    assert end(remember(deaf.pid), mark, sign=signal.SIGTERM, limit_s=0.3)
    assert time.monotonic() - began >= 0.3
    assert deaf.wait() == -signal.SIGKILL


def test_one_that_stays_is_told(begin: Begin, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = begin(WAIT, mark)
    monkeypatch.setattr(processes, "KILL_S", 0.2)
    monkeypatch.setattr(processes, "_signal", lambda *_: None)
    with pytest.raises(OSError, match=f"processes {stubborn.pid} do not end"):
        end(remember(stubborn.pid), mark, sign=signal.SIGTERM, limit_s=0)
