"""`platform predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tunery.cli import _ask, _batch, _demo, extras
from tunery.cli._models import BatchOption, DeviceOption, ModelArgument, quiet_libraries
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, only_stderr, table
from tunery.errors import InputError

if TYPE_CHECKING:
    from tunery.inference.generator import Answer
    from tunery.inference.inputs import Reader
    from tunery.inference.model import Model
    from tunery.inference.predictor import Prediction

PANEL = Panel.MODELS
ORDER = 10


def command(
    model: ModelArgument,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="One text to predict.")] = None,
    text2: Annotated[str | None, typer.Option("--text2", metavar="TEXT", help="Its second text, for pairs.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="IN",
            help="""JSON Lines: {"text": "..."}, with "text2" for pairs, or the task's columns; - is stdin.""",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="OUT", help="Where the predictions of --file go; - is stdout.", show_default="stdout"
        ),
    ] = None,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Ask for texts until Ctrl-D.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="The task's own examples: what is meant, what it says.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="ROOT", show_default="none", help="With --demo: the first rows of the task's data here."
        ),
    ] = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ask a model: one text, a file of them, one after the other, or its task's own examples.

    --text with -o json: {model, label, score, scores}; of a regression the score is the value and the label null; of a
    model that generates {model, answer}.

    --file: a line {index, label, score, scores} for each line of IN, in order; index counts IN's lines from 0. A line
    that cannot be read is named on stderr and kept in OUT.bad.jsonl ({index, why, line}), and the exit code is then 2.
    It is read 16 batches ahead (4 of a model that generates), whatever its length. OUT is there when it is whole; after
    Ctrl-C what was done is in OUT.part, in whole lines. With -o json: {model, file, out, predicted, bad, bad_file,
    interrupted}.

    --interactive: what was typed is kept in TUNERY_HOME/predict_history. With -o json a line a text: {label, score,
    scores, latency_ms}, or {answer, tokens, latency_ms}.

    --demo with -o json: {model, task, examples: [{text, meant, label, score, scores}], agreed: how many labels are as
    meant}.
    """
    extras.require("cluster")
    if sum((text is not None, file is not None, interactive, demo)) != 1:
        raise InputError("give one of --text TEXT, --file IN, --interactive and --demo")
    if (text2 is not None and text is None) or (out is not None and file is None) or (data is not None and not demo):
        raise InputError("--text2 goes with --text, --out with --file, and --data with --demo")
    if file is not None:
        out = None if out == Path("-") else out
        _batch.check(file, out, output)
    quiet_libraries()
    with only_stderr():
        from tunery.inference.inputs import Reader
        from tunery.inference.model import open_source
        from tunery.inference.source import locate

        source = locate(model, profile=profile)
        for line in source.notes:
            note(line)
        examples = _demo.examples_of(source.card, source.name, data) if demo else ()
        opened = open_source(source, device)
    reader = Reader.of(source.card)
    if demo:
        _demo.demo(opened, examples, output)
    elif text is not None:
        _one(opened, reader, text, text2, output)
    elif file is not None:
        _batch.predict_file(opened, reader, file, out, batch_size=batch_size, output=output)
    else:
        _ask.ask(opened, reader, output)


def _one(model: Model, reader: Reader, text: str, text2: str | None, output: Format) -> None:
    try:
        prediction = model(*reader.checked(text, text2))
    except ValueError as bad:
        raise InputError(f"{model.name}: {bad} (--text, --text2)") from None
    emit(output, {"model": model.name} | prediction.told(), _shown(prediction))


def _shown(prediction: Prediction | Answer) -> Any:
    if not prediction.scores:
        return Text(prediction.line)
    shown = table("label", "probability", numbers=("probability",))
    for label, score in sorted(prediction.scores.items(), key=lambda item: -item[1]):
        shown.add_row(label, f"{score:.4f}", style="bold" if score == max(prediction.scores.values()) else "")
    return shown
