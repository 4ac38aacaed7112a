"""`platform ui`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Annotated, NoReturn

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note
from tunery.errors import UnreachableError
from tunery.home import Home

PANEL = Panel.MACHINE
ORDER = 10

START_S = 120.0
"""Time a server has to answer: it imports much, and lays out a new database."""
END_S = 10.0


def command(
    profile: ProfileOption = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Listen here.", show_default="a free one"),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Open MLflow's pages on this machine's runs and models, until Ctrl-C.

    It listens on 127.0.0.1 only. Where the profile names an MLflow server, its address is printed and nothing started.
    With -o json: {url, pid}, printed once the pages answer.
    """
    from tunery.cli._checks import free_port
    from tunery.client._reach import check_server, is_server
    from tunery.client._trust import Trust
    from tunery.profile import load_profile

    home = Home.from_environment()
    place = load_profile(profile, home)
    uri = place.tracking_uri
    if is_server(uri):
        check_server(uri, Trust.of(place))
        emit(output, {"url": uri, "pid": None}, Text(uri))
        return
    extras.require("cluster")
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    note(f"starting MLflow on {uri}, which takes some seconds")
    with _terminated_like_interrupted(), _server(home, uri, port) as (process, log):
        try:
            _until_it_answers(process, url, log)
            emit(output, {"url": url, "pid": process.pid}, Text(url))
            sys.stdout.flush()
            note("Ctrl-C ends it")
            process.wait()
        except KeyboardInterrupt:
            note("ended")
            return
        raise UnreachableError(f"MLflow's server has ended by itself:\n{_end_of(log)}")


@contextmanager
def _server(home: Home, uri: str, port: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    from tunery.here.mlflow import ENVIRONMENT

    home.root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", uri]
    command += ["--default-artifact-root", str(home.artifacts), "--artifacts-destination", str(home.artifacts)]
    with tempfile.TemporaryFile() as log:
        # A session of its own: all of it can be ended at once, and Ctrl-C comes to us alone.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=home.root, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
        try:
            yield process, log
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # The server first, in order; then what is left of its workers.
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)


def _until_it_answers(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    from tunery.client._reach import check_server
    from tunery.client._trust import Trust

    deadline = time.monotonic() + START_S
    while True:
        try:
            return check_server(url, Trust())
        except UnreachableError:
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"MLflow's server has not answered in {START_S:.0f} s:\n{_end_of(log)}"
                ) from None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.25)
            raise UnreachableError(f"MLflow's server has ended at its start:\n{_end_of(log)}")


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-15:])


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the server too, instead of leaving it behind."""

    def interrupt(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
