"""The report as Markdown, with its pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tunery.report.documents.sections import Section, Table


def markdown(title: str, sections: Sequence[Section]) -> bytes:
    """UTF-8."""
    return (
        "\n\n".join([f"# {_text(title)}", *(part for section in sections for part in _parts(section))]) + "\n"
    ).encode()


def _parts(section: Section) -> Iterator[str]:
    yield f"## {_text(section.title)}"
    if section.picture:
        yield f"![{_text(section.title)}]({section.picture})"
    bullet = "- " if len(section.lines) > 1 else ""
    if section.lines:
        yield "\n".join(bullet + _text(line) for line in section.lines)
    if section.table is not None:
        yield _table(section.table)


def _table(table: Table) -> str:
    rules = ["---" if column in table.texts else "---:" for column in table.columns]
    rows = [[_text(item) for item in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rules, *rows[1:]])


def _text(text: str) -> str:
    """What Markdown would take for its own, escaped: names have underscores, errors anything."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
