"""`platform init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunery.cli.options import OutputOption, spec_command
from tunery.cli.output import Format, Panel, emit
from tunery.errors import ConflictError, InputError, SpecError

PANEL = Panel.SPECS
ORDER = 10


def command(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="The file to write.")] = Path("sweep.yaml"),
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", metavar="TASK", help="A task of the catalogue. Repeatable.", show_default=False),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="ID", help="A hub id, a folder, or embedded:minilm.")
    ] = "embedded:minilm",
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a commented spec to start from.

    Without --task it is for the generated task `acceptability`, which needs neither network nor data.
    """
    from tunery.spec import parse_spec
    from tunery.spec.template import template

    text = template(name=file.stem, task_names=tuple(task or ("acceptability",)), model=model)
    try:
        parse_spec(text, file=str(file))
    except SpecError as error:
        # The lines are of a file that is not written: what remains is what is wrong with --task and --model.
        raise InputError("\n".join(mistake.message for mistake in error.mistakes)) from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise ConflictError(f"{file} is there already and is left as it was; name another file") from None
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
    emit(
        output,
        {"file": str(file)},
        f"wrote {file}",
        next_steps=[spec_command(name, file) for name in ("validate", "plan", "submit")],
    )
