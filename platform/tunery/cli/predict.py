"""`platform predict`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli._models import BatchOption, DeviceOption, ModelArgument, quiet_libraries
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, only_stderr, table
from tunery.errors import InputError

if TYPE_CHECKING:
    from tunery.inference.generator import Answer
    from tunery.inference.inputs import Line, Reader
    from tunery.inference.model import Model
    from tunery.inference.predictor import Input, Prediction

PANEL = Panel.MODELS
ORDER = 10


def command(
    model: ModelArgument,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="One text to predict.")] = None,
    text2: Annotated[str | None, typer.Option("--text2", metavar="TEXT", help="Its second text, for pairs.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", metavar="IN", help="JSON Lines with text (and text2), or the task's columns; - is stdin."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="OUT", help="Where the predictions of --file go.", show_default="stdout"),
    ] = None,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Ask for texts until Ctrl-D.")] = False,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ask a model: one text, a file of them, or one after the other.

    --text with -o json: {model, label, score, scores}; of a regression the score is the value and the label null.

    --file: a line {index, label, score, scores} for each line of IN, in order; index counts IN's lines from 0. A line
    that cannot be read is named on stderr and kept in OUT.bad.jsonl ({index, why, line}), and the exit code is then 2.
    With -o json: {model, file, out, predicted, bad, bad_file}.
    """
    extras.require("cluster")
    if sum((text is not None, file is not None, interactive)) != 1:
        raise InputError("give one of --text TEXT, --file IN and --interactive")
    if (text2 is not None and text is None) or (out is not None and file is None):
        raise InputError("--text2 goes with --text, and --out with --file")
    if file is not None:
        _check_files(file, out, output)
    quiet_libraries()
    with only_stderr():
        from tunery.inference.inputs import Reader
        from tunery.inference.model import open_model

        predictor = open_model(model, device=device, profile=profile)
    reader = Reader.of(predictor.card)
    if text is not None:
        _one(predictor, reader, text, text2, output)
    elif file is not None:
        _file(predictor, reader, file, out, batch_size, output)
    else:
        _ask(predictor, reader, output)


def _one(predictor: Model, reader: Reader, text: str, text2: str | None, output: Format) -> None:
    try:
        prediction = predictor(*reader.checked(text, text2))
    except ValueError as bad:
        raise InputError(f"{predictor.name}: {bad} (--text, --text2)") from None
    emit(output, {"model": predictor.name} | prediction.told(), _shown(prediction))


def _shown(prediction: Prediction | Answer) -> Any:
    if not prediction.scores:
        return Text(prediction.line)
    shown = table("label", "probability", numbers=("probability",))
    for label, score in sorted(prediction.scores.items(), key=lambda item: -item[1]):
        shown.add_row(label, f"{score:.4f}", style="bold" if score == max(prediction.scores.values()) else "")
    return shown


def _check_files(file: Path, out: Path | None, output: Format) -> None:
    if str(file) != "-" and not file.is_file():
        raise InputError(f"no file {file}")
    if out is None and output is Format.JSON:
        raise InputError("-o json with --file needs --out: stdout holds one document then")
    if out is not None and out.is_dir():
        raise InputError(f"{out} is a folder; --out names a file")
    if out is not None and out.exists() and file.exists() and out.samefile(file):
        raise InputError(f"--file and --out are the same file: {file}")


def _file(predictor: Model, reader: Reader, file: Path, out: Path | None, batch_size: int, output: Format) -> None:
    bad_file = Path(f"{out or ('stdin' if str(file) == '-' else file)}.bad.jsonl")
    counts = {"predicted": 0, "bad": 0}
    with contextlib.ExitStack() as files:
        source: IO[bytes] = sys.stdin.buffer if str(file) == "-" else files.enter_context(file.open("rb"))
        write = files.enter_context(_writing(out)) if out else _to_stdout
        bad_file.unlink(missing_ok=True)

        def keep(line: Line) -> None:
            counts["bad"] += 1
            note(f"{file}:{line.number}: {line.why}")
            with bad_file.open("a", encoding="utf-8") as handle:
                handle.write(_line({"index": line.number - 1, "why": line.why, "line": line.raw}))

        numbers: list[int] = []
        for prediction in predictor.predict_many(_good(reader.read(source), keep, numbers), batch_size):
            write(_line({"index": numbers[counts["predicted"]]} | prediction.told()))
            counts["predicted"] += 1
    document = {"model": predictor.name, "file": str(file), "out": str(out) if out else None, **counts,
                "bad_file": str(bad_file) if counts["bad"] else None}  # fmt: skip
    summary = f"{counts['predicted']} predicted" + (
        f", {counts['bad']} bad lines in {bad_file}" if counts["bad"] else ""
    )
    if out is None:
        note(summary)
    else:
        emit(output, document, Text(f"{summary}; in {out}"))
    if counts["bad"]:
        raise typer.Exit(InputError.exit_code)


def _good(lines: Iterator[Line], keep: Callable[[Line], None], numbers: list[int]) -> Iterator[Input]:
    """The inputs of the good lines, whose indices are noted in `numbers`; the others are given to `keep`."""
    pairs: bool | None = None
    for line in lines:
        if line.input is not None and pairs is None:
            pairs = line.input[1] is not None
        if line.input is None:
            keep(line)
        elif (line.input[1] is not None) != pairs:
            keep(line._replace(why="some lines have a second text and some do not: the first good line decides"))
        else:
            numbers.append(line.number - 1)
            yield line.input


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[Callable[[str], object]]:
    """Writes a file that is there when it is whole: what was there stays until then."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            yield handle.write
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _to_stdout(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _ask(predictor: Model, reader: Reader, output: Format) -> None:
    """One prediction a text; with -o json one line of JSON each."""
    note(f"{predictor.name}: a text a line{', then its second text' if reader.pairs else ''}; Ctrl-D ends")
    while True:
        try:
            text = _prompt("text> ")
            text2 = _prompt("text2> ") if reader.pairs else None
        except EOFError:
            return
        try:
            prediction = predictor(*reader.checked(text, text2))
        except (ValueError, InputError) as bad:
            note(str(bad))
            continue
        if output is Format.JSON:
            _to_stdout(_line(prediction.told()))
        else:
            _to_stdout(f"{prediction.line}\n")


def _prompt(words: str) -> str:
    if sys.stdin.isatty():
        sys.stderr.write(words)
        sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")
