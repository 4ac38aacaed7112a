"""`platform predict --file`: whatever comes in, in order, in constant memory, and whole lines when it is stopped."""

from __future__ import annotations

import gc
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.fakes import wait_for
from tests.unit.inference.conftest import make_adapter, make_base
from tunery.cli import _batch
from tunery.cli.app import run
from tunery.cli.output import Format
from tunery.inference import inputs
from tunery.inference.card import AdapterCard
from tunery.inference.inputs import Reader
from tunery.inference.predictor import Input, Prediction, Predictor

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _hears_ctrl_c() -> Iterator[None]:
    """A shell starts what runs behind it deaf to SIGINT, and so would be what is started here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    return make_adapter(root / "adapter", make_base(root / "base", bert=True))


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Quick:
    """A model that reads ahead as the real ones do, and says nothing of interest."""

    name = "quick"

    def __init__(self) -> None:
        self.most_ahead = 0

    def predict_many(self, given: Iterable[Input], batch_size: int) -> Iterator[Prediction]:
        iterator = iter(given)
        while window := list(islice(iterator, batch_size * 16)):
            for text, _ in window:
                yield Prediction("a", float(text), {})


def predict(model: Any, folder: Path, file: Path, out: Path) -> None:
    _batch.predict_file(
        model, Reader.of(AdapterCard.read(folder)), file, out, batch_size=32, output=Format.JSON
    )  # fmt: skip


def test_many_lines_take_no_more_memory_than_few(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    peaks = []
    for count in (2_000, 100_000):
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        with source.open("w") as handle:
            handle.writelines(f'{{"text": "{number}"}}\n' for number in range(count))
        gc.collect()
        tracemalloc.start()
        predict(Quick(), folder, source, out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert json.loads(capsys.readouterr().out)["predicted"] == count
        with out.open() as lines:
            assert all(json.loads(line)["index"] == number for number, line in enumerate(lines))
    assert peaks[1] < 1.5 * peaks[0] + 100_000, "the queue of what is read ahead is all that is held"


def test_a_predictor_reads_ahead_by_sixteen_batches_at_most(folder: Path) -> None:
    read = 0

    def endless() -> Iterator[Input]:
        nonlocal read
        while True:
            read += 1
            yield ("the cat sat", None)

    for given, _ in enumerate(islice(Predictor.load(folder).predict_many(endless(), batch_size=2), 100), start=1):
        assert read - given <= 2 * 16


@pytest.mark.parametrize(
    ("content", "indices", "whys"),
    [
        (b"", [], []),
        (b"\n \n", [], []),
        (b'\xef\xbb\xbf{"text": "a cat"}\n"no"\n', [0, 1], []),
        (b'{"text": "a cat"}\r\n"no"\r\n', [0, 1], []),
        (b'{"text": "a cat"}', [0], []),
        ('"a cat"\n'.encode("utf-16"), [], ["not UTF-8, but UTF-16", "not JSON (Expecting value at column 1)"]),
        (b'"a cat"\n\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\n"no"\n', [0, 4], ["not UTF-8", "not JSON", "not JSON"]),
        (b"the cat sat\n", [], ['not JSON (Expecting value at column 1): expected {"text": "..."}, or "..."']),
        (b'{"text": "a \\ud83d"}\n"no"\n', [1], ["the text is not valid Unicode"]),
        (b'{"text": "' + b"x" * 100 + b'"}\n"no"\n', [1], ["longer than 0 MiB"]),
        (b"[" * 60, [], ["not JSON"]),
        (b'{"text": null}\n{"text": 3}\n', [], ["'text' and 'text2' hold text", "'text' and 'text2' hold text"]),
    ],
    ids=["empty", "blank", "bom", "crlf", "no-end", "utf-16", "binary", "plain", "half", "long", "deep", "types"],
)
def test_whatever_comes_in(
    content: bytes,
    indices: list[int],
    whys: list[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "LONGEST_LINE", 64)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(content)
    lines = list(Reader.of(AdapterCard.read(folder)).read(inputs.Lines(source.open("rb"))))
    assert [line.number - 1 for line in lines if line.input] == indices
    bad = [line.why for line in lines if line.input is None]
    assert len(bad) == len(whys)
    assert all(why in told for why, told in zip(whys, bad, strict=True)), bad
    assert not out.exists()


def test_an_empty_file_has_no_predictions(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in.jsonl").touch()
    assert run(["predict", str(folder), "--file", f"{tmp_path}/in.jsonl", "--out", f"{tmp_path}/out.jsonl"]) == 0
    assert "0 predicted; in" in capsys.readouterr().out
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_of_many_bad_lines_the_first_are_named(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("nonsense\n" * 50 + '"a cat"\n')
    assert run(["predict", str(folder), "--file", str(source), "--out", "-"]) == 2
    captured = capsys.readouterr()
    assert [json.loads(line)["index"] for line in captured.out.splitlines()] == [50]
    assert captured.err.count("not JSON") == _batch.TOLD
    assert f"more bad lines; all are in {source}.bad.jsonl" in captured.err
    assert f"1 predicted, 50 bad lines in {source}.bad.jsonl" in captured.err
    assert [entry["index"] for entry in written(Path(f"{source}.bad.jsonl"))] == list(range(50))


@pytest.mark.parametrize(
    ("file", "out", "message"),
    [
        ("folder", "out", "folder is a folder; --file names a file"),
        ("nowhere", "out", "no file"),
        ("good", "folder", "folder is a folder; --out names a file"),
        ("good", "good/out", "good is no folder"),
        ("good", "/dev/null", "/dev/null is no file; without --out, or with -, the predictions go to stdout"),
        ("good", "good", "would be overwritten"),
        ("good.bad.jsonl", "good", "would be overwritten"),
        ("loop", "out", "cannot be read"),
        ("mem", "out", "cannot be read"),
    ],
)
def test_paths_that_will_not_do_are_told_before_the_model_is_loaded(
    file: str, out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("good").write_text('"a"\n')
    Path("good.bad.jsonl").write_text('"a"\n')
    Path("loop").symlink_to("loop")
    if file == "mem":
        Path("mem").write_text("")

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")  # what root, whom tests may run as, never meets

        monkeypatch.setattr(Path, "open", refuse)
    assert run(["predict", "no-such-model", "--file", file, "--out", out]) == 2
    err = capsys.readouterr().err
    assert message in err or (file == "loop" and "no file" in err)
    assert "fault of tunery" not in err


def test_a_pipe_by_name_is_read_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text('"a cat"\nnonsense\n'))
    writer.start()
    assert run(["predict", str(folder), "--file", "pipe", "--out", "out"]) == 2
    writer.join()
    assert [entry["index"] for entry in written(Path("out"))] == [0]
    assert written(Path("out.bad.jsonl"))[0]["line"] == "nonsense"


def test_a_full_disk_is_told(folder: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "in").write_text('"a cat"\n')
    command = [sys.executable, "-m", "tunery.cli.app", "predict", str(folder), "--file", str(tmp_path / "in")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "error: stdout cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_that_is_not_there_is_told(folder: Path, capsys: Capture) -> None:
    for name in ("nonsense", "cuda:99"):
        assert run(["predict", str(folder), "--text", "a cat", "--device", name]) == 2
        err = capsys.readouterr().err
        assert f"device {name!r} cannot be used here" in err
        assert "there is: cpu" in err


def test_ctrl_c_waits_until_a_line_is_written() -> None:
    gate, done = _batch._Gate(), []
    with gate.installed():
        with pytest.raises(KeyboardInterrupt), gate.closed():  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the rest of the line")
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            done.append("nothing of this")
    assert done == ["the rest of the line"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted(arguments: list[str], *, when: Any) -> tuple[int, str, str]:
    """A command whose standard input has sixteen texts and stays open, until `when` and then Ctrl-C."""
    command = [sys.executable, "-m", "tunery.cli.app", "predict", *arguments, "--file", "-", "--batch-size", "1"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        process.stdin.write('{"text": "a cat"}\n' * 15 + "nonsense\n" + '{"text": "a cat"}\n')
        process.stdin.flush()
        first = when(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    return process.returncode, first + out, err


def test_ctrl_c_leaves_whole_lines_and_what_was_there_before(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old\n")

    def all_written(_: object) -> str:
        wait_for(lambda: any(len(file.read_text().splitlines()) == 16 for file in tmp_path.glob(".out*")), 300)
        return ""

    code, told, err = interrupted([str(folder), "--out", str(out), "-o", "json"], when=all_written)
    assert code == 130, err
    document = json.loads(told)
    assert (document["predicted"], document["bad"], document["interrupted"]) == (16, 1, True)
    assert document["out"] == f"{out}.part"
    assert out.read_text() == "old\n"
    assert [entry["index"] for entry in written(Path(f"{out}.part"))] == [*range(15), 16]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.bad.jsonl", "out.jsonl.part"]


def test_ctrl_c_leaves_whole_lines_on_stdout(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, told, err = interrupted([str(folder)], when=lambda process: process.stdout.readline())
    assert code == 130
    assert "interrupted: " in err
    indices = [json.loads(line)["index"] for line in told.splitlines()]
    assert indices == [*range(15), 16][: len(indices)]


def test_a_bar_on_a_terminal_and_none_in_the_results(folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('"a cat sat on the mat"\n' * 400 + "nonsense\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tunery.cli.app", "predict", str(folder), "--file", str(source)]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with (
        out.open("wb") as results,
        subprocess.Popen([*command, "--batch-size", "2"], stdout=results, stderr=theirs, env=environment) as process,
    ):
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    assert process.returncode == 2
    assert "━".encode() in shown
    assert b" predicted, " in shown
    assert b"line 401: not JSON" in shown
    assert [entry["index"] for entry in written(out)] == list(range(400))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""


def test_lines_about_the_progress_where_there_is_no_terminal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(_batch, "PLAIN_INTERVAL_S", -1.0)
    source = tmp_path / "in.jsonl"
    source.write_text('"1"\n"2"\n')
    predict(Quick(), folder, source, tmp_path / "out.jsonl")
    err = capsys.readouterr().err
    assert "1 predicted (50% of the file)" in err
    assert "2 predicted (100% of the file)" in err
