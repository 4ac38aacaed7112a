"""The report as one page: pictures inside it, no script, nothing fetched; readable in the dark too."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from tunery.report.documents.sections import Section, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #5c6370; --paper: #fff; --line: #dfe2e6; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --dim: #9aa1ac; --paper: #17191c; --line: #34383e; --band: #202327; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei",
  sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p, li { max-width: 52rem; }
p, ul { margin: .5rem 0; }
ul { padding-left: 1.25rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; }
th { background: var(--band); color: var(--dim); font-weight: 600; }
tbody tr + tr td { border-top: 1px solid var(--line); }
tbody tr:hover td { background: var(--band); }
.text { text-align: left; }
td.long { white-space: normal; min-width: 16rem; }
figure { margin: .8rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--dim); font-size: .9rem; max-width: 52rem; }
details { margin-top: 1rem; }
summary { cursor: pointer; font-weight: 600; margin-bottom: .5rem; }
"""
_LONG = 40
"""Characters from which on a text of a table may be set in several lines."""


def page(title: str, sections: Sequence[Section], pictures: Mapping[str, bytes]) -> bytes:
    """UTF-8. `pictures`: name -> PNG."""
    body = "\n".join(part for section in sections for part in _parts(section, pictures))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    ).encode()


def _parts(section: Section, pictures: Mapping[str, bytes]) -> Iterator[str]:
    if section.folded:
        yield f"<details><summary>{escape(section.title)}</summary>"
    else:
        yield f"<h2>{escape(section.title)}</h2>"
    if section.picture:
        data = base64.b64encode(pictures[section.picture]).decode()
        yield (
            f'<figure><img alt="{escape(section.title)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(' '.join(section.lines))}</figcaption></figure>"
        )
    elif len(section.lines) > 1:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in section.lines)}</ul>"
    else:
        yield from (f"<p>{escape(line)}</p>" for line in section.lines)
    if section.table is not None:
        yield _table(section.table)
    if section.folded:
        yield "</details>"


def _table(table: Table) -> str:
    def cell(tag: str, column: str, text: str) -> str:
        names = [*(["text"] if column in table.texts else []), *(["long"] if len(text) > _LONG else [])]
        kind = f' class="{" ".join(names)}"' if names else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in table.columns)
    rows = "\n".join(
        f"<tr>{''.join(cell('td', column, text) for column, text in zip(table.columns, row, strict=True))}</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>'
