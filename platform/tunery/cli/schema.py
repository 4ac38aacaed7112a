"""`platform schema`."""

from __future__ import annotations

from tunery.cli.options import OutputOption
from tunery.cli.output import Format, Panel, emit, to_json

PANEL = Panel.SPECS
ORDER = 40


def command(output: OutputOption = Format.TABLE) -> None:
    """Print the JSON Schema of a spec, for editors.

    An editor that knows yaml-language-server completes and checks a spec whose first line is
    `# yaml-language-server: $schema=FILE`, with FILE written by `platform schema > FILE`.
    """
    from tunery.spec import json_schema

    schema = json_schema()
    if output is Format.JSON:
        emit(output, schema)
    else:
        # Not through rich, which would wrap it: it is a document in either format.
        print(to_json(schema))
