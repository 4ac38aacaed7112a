"""`platform predict --file`: line after line in and out, whatever their number, and bad ones kept apart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.text import Text

from tunery.cli.output import INTERRUPTED, Format, count_of, emit, note, stderr
from tunery.errors import InputError

if TYPE_CHECKING:
    from tunery.inference.inputs import Line, Reader
    from tunery.inference.model import Model
    from tunery.inference.predictor import Input

TOLD = 20
"""Bad lines that are named one by one; all are in the file."""
PLAIN_INTERVAL_S = 10.0
"""Between two lines about the progress where there is no terminal for a bar."""
_BAR_INTERVAL_S = 0.1


def check(file: Path, out: Path | None, output: Format) -> None:
    """What is wrong before anything is loaded. InputError."""
    if file.is_dir():
        raise InputError(f"{file} is a folder; --file names a file")
    if str(file) != "-" and not file.exists():
        raise InputError(f"no file {file}")
    if file.is_file():  # a pipe is opened once only
        _open(file).close()
    if out is None:
        if output is Format.JSON:
            raise InputError("-o json with --file needs --out: stdout holds one document then")
        return
    if out.is_dir():
        raise InputError(f"{out} is a folder; --out names a file")
    if out.exists() and not out.is_file():  # it would be replaced by a file
        raise InputError(f"{out} is no file; without --out, or with -, the predictions go to stdout")
    for written in (out, _bad_file(file, out)):
        if written.exists() and file.exists() and written.samefile(file):
            raise InputError(f"--file {file} would be overwritten: name another --out")
    near = next(parent for parent in out.absolute().parents if parent.exists())
    if not near.is_dir():
        raise InputError(f"--out {out} cannot be written: {near} is no folder")
    if not os.access(near, os.W_OK):
        raise InputError(f"--out {out} cannot be written: no permission in {near}")


def predict_file(
    model: Model, reader: Reader, file: Path, out: Path | None, *, batch_size: int, output: Format
) -> None:
    """A line for each good line of `file`, in its order. Exit code 2 where there are bad ones, 130 after Ctrl-C."""
    from tunery.inference.inputs import Lines

    if str(file) == "-" and sys.stdin.isatty():
        note("reading JSON Lines from the terminal; Ctrl-D ends")
    tally = _Tally(_bad_file(file, out))
    waiting: deque[tuple[int, int]] = deque()  # of lines that were read: the index, and where the next one begins
    sink = _Sink(out)
    try:
        with contextlib.ExitStack() as stack:
            lines = Lines(sys.stdin.buffer if str(file) == "-" else stack.enter_context(_open(file)))
            gate = stack.enter_context(_Gate().installed())
            stack.enter_context(sink)
            stack.enter_context(tally)
            size = file.stat().st_size if file.is_file() else None
            # Lines on the same terminal show how far it is, and a bar would be torn by them.
            bar = not (out is None and sys.stdout.isatty())
            show = stack.enter_context(_progress(size, tally, bar=bar))
            inputs = _good(
                reader.read(lines), tally, gate, lambda line: waiting.append((line.number - 1, lines.position))
            )
            for prediction in model.predict_many(inputs, batch_size):
                index, position = waiting.popleft()
                with gate.closed():
                    sink.write(_line({"index": index} | prediction.told()))
                    tally.predicted += 1
                show(position)
    except KeyboardInterrupt:
        tally.interrupted = True
    except Exception:
        if sink.partial is not None:
            note(f"{tally.predicted:,} were predicted before this; they are in {sink.partial}")
        raise
    _tell(model, file, out, sink.partial if tally.interrupted else out, tally, output)


def _tell(model: Model, file: Path, out: Path | None, written: Path | None, tally: _Tally, output: Format) -> None:
    bad = f", {count_of(tally.bad, 'bad line')} in {tally.bad_file}" if tally.bad else ""
    place = f"; in {written}" if written else ""
    summary = f"{'interrupted: ' if tally.interrupted else ''}{tally.predicted:,} predicted{bad}{place}"
    if out is None:
        note(summary)
    else:
        document = {
            "model": model.name,
            "file": str(file),
            "out": str(written) if written else None,
            "predicted": tally.predicted,
            "bad": tally.bad,
            "bad_file": str(tally.bad_file) if tally.bad else None,
            "interrupted": tally.interrupted,
        }
        emit(output, document, Text(summary))
    if tally.interrupted:
        raise typer.Exit(INTERRUPTED)
    if tally.bad:
        raise typer.Exit(InputError.exit_code)


def _bad_file(file: Path, out: Path | None) -> Path:
    # Beside a pipe, as `<(zcat x.gz)` makes one, nothing can be written.
    return Path(f"{out or (file if file.is_file() else 'stdin')}.bad.jsonl")


def _open(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error


def _good(lines: Iterator[Line], tally: _Tally, gate: _Gate, read: Callable[[Line], None]) -> Iterator[Input]:
    """The inputs of the good lines, each given to `read` before; the others are given to the tally."""
    pairs: bool | None = None
    for line in lines:
        if line.input is not None and pairs is None:
            pairs = line.input[1] is not None
        if line.input is not None and (line.input[1] is not None) == pairs:
            read(line)
            yield line.input
            continue
        why = line.why or "some lines have a second text and some not: the first good one decides"
        with gate.closed():
            tally.keep(line._replace(why=why))


@dataclass
class _Tally:
    """What came of the lines; keeps the bad ones in a file of their own."""

    bad_file: Path
    predicted: int = 0
    bad: int = 0
    interrupted: bool = False
    say: Callable[[str], None] = note
    _handle: IO[str] | None = None

    def __enter__(self) -> _Tally:
        with _written(self.bad_file):
            self.bad_file.unlink(missing_ok=True)  # of an earlier time
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.close()

    def keep(self, line: Line) -> None:
        self.bad += 1
        if self.bad <= TOLD:
            self.say(f"line {line.number}: {line.why}")
        elif self.bad == TOLD + 1:
            self.say(f"more bad lines; all are in {self.bad_file}")
        with _written(self.bad_file):
            self._handle = self._handle or self.bad_file.open("w", encoding="utf-8")
            self._handle.write(_line({"index": line.number - 1, "why": line.why, "line": line.raw}))
            self._handle.flush()


@dataclass
class _Sink:
    """Where predictions go: stdout, or a file that is there when it is whole; what was there stays until then."""

    out: Path | None
    partial: Path | None = None
    """Where the lines are, if it did not come to the end."""
    _handle: IO[str] | None = None
    _lines: int = 0

    def __enter__(self) -> _Sink:
        if self.out is not None:
            with _written(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self._handle = self._temporary(self.out).open("w", encoding="utf-8", buffering=1)
        return self

    def write(self, line: str) -> None:
        if self._handle is None:
            with _written("stdout"):
                sys.stdout.write(line)
                sys.stdout.flush()
            return
        assert self.out is not None
        with _written(self.out):
            self._handle.write(line)
        self._lines += 1

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._handle is None or self.out is None:
            return
        temporary = self._temporary(self.out)
        try:
            with _written(self.out):
                self._handle.close()
                if failure is None:
                    temporary.replace(self.out)
                elif self._lines:
                    part = self.out.with_name(f"{self.out.name}.part")
                    temporary.replace(part)
                    self.partial = part
        finally:
            temporary.unlink(missing_ok=True)

    def _temporary(self, out: Path) -> Path:
        return out.with_name(f".{out.name}.{os.getpid()}")


@contextlib.contextmanager
def _written(file: Path | str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever reads has seen enough, which `tunery.cli.app` knows to end on
        raise
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error


@dataclass
class _Gate:
    """Ctrl-C waits while the gate is closed, so that what is written is whole lines."""

    _closed: bool = field(default=False)
    _asked: bool = field(default=False)

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        self._closed = True
        try:
            yield
        finally:
            self._closed = False
        if self._asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def installed(self) -> Iterator[_Gate]:
        # Only the main thread may say what a signal does; and whoever has said so already is left alone.
        if threading.current_thread() is not threading.main_thread() or (
            signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        ):
            yield self
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._closed:
            raise KeyboardInterrupt
        self._asked = True


@contextlib.contextmanager
def _progress(size: int | None, tally: _Tally, *, bar: bool) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how far it is; called with the bytes of the input that are done."""
    console = stderr()
    if not console.is_terminal:
        yield _plain(size, tally)
        return
    if not bar:
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        began = time.monotonic()
        task = shown.add_task("0 predicted", total=size)
        drawn = 0.0

        def update(position: int) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn > _BAR_INTERVAL_S:
                drawn = now
                words = f"{tally.predicted:,} predicted, {tally.predicted / max(now - began, 1e-9):,.0f}/s"
                shown.update(task, completed=position if size is not None else None, description=words)

        before, tally.say = tally.say, lambda words: shown.console.print(Text(words), soft_wrap=True)
        try:
            yield update
        finally:
            tally.say = before


def _plain(size: int | None, tally: _Tally) -> Callable[[int], None]:
    began = said = time.monotonic()

    def update(position: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said > PLAIN_INTERVAL_S:
            said = now
            share = f" ({position / size:.0%} of the file)" if size else ""
            note(f"{tally.predicted:,} predicted{share}, {tally.predicted / (now - began):,.0f}/s")

    return update


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
