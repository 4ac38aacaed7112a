"""`platform export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tunery.cli import extras
from tunery.cli._models import DeviceOption, ModelArgument, quiet_libraries
from tunery.cli.options import OutputOption, ProfileOption
from tunery.cli.output import Format, Panel, emit, note, only_stderr

PANEL = Panel.MODELS
ORDER = 60


def command(
    model: ModelArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder, or an empty one.", show_default=False)],
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the adapter into its base: one model, and no PEFT to load it.")
    ] = False,
    device: DeviceOption = None,
    profile: ProfileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a model's files to a folder: the PEFT adapter, or with --merge the whole model.

    A merged model is read back and its logits compared with the adapter's; the largest difference is printed.
    With -o json: {model, folder, merged, files, samples, max_difference, max_difference_quantised}.
    """
    extras.require("cluster")
    quiet_libraries()
    with only_stderr():
        from tunery.inference.export import export

        done = export(model, to, merge=merge, device=device, profile=profile)
    for line in done.notes:
        note(line)
    lines = [Text(f"{done.model} is in {done.folder}: {', '.join(done.files)}")]
    if done.max_difference is not None:
        told = f"largest difference of a logit from the adapter's, on {done.samples} texts: {done.max_difference:.2g}"
        lines.append(Text(told))
    if done.max_difference_quantised is not None:
        told = f"from the adapter on the 4-bit base it was trained on: {done.max_difference_quantised:.2g}"
        lines.append(Text(told))
    document = {
        "model": done.model,
        "folder": str(done.folder.resolve()),
        "merged": done.merged,
        "files": done.files,
        "samples": done.samples,
        "max_difference": done.max_difference,
        "max_difference_quantised": done.max_difference_quantised,
    }
    emit(output, document, *lines, next_steps=[f"platform predict {to} --text '...'"])
