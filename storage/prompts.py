"""Prompts with a place for a column's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter


def columns_of(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names. ValueError where it cannot be taken apart or has something else in braces."""
    named = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(prompt) if name is not None]
    for name, spec, conversion in named:
        if not name or spec or conversion:
            raise ValueError(f"expected {{column}} in braces, got {{{name}}}; a column's name has no ':' and no '!'")
    return tuple(dict.fromkeys(name for name, _, _ in named))


def filled(prompt: str, values: Mapping[str, object], text: Callable[[str], tuple[str, str]]) -> tuple[str, str]:
    """The prompt of a row, or '' and why there is none; `text` gives a column's, or why it has none.

    A column may be empty as long as not all are. Where a prompt is nothing but columns, a text that stands in two of
    them is asked once; between words of a prompt all stay.
    """
    parts = list(Formatter().parse(prompt))
    once = not any(words.strip() for words, *_ in parts)
    texts: dict[str, str] = {}
    for column in columns_of(prompt):
        empty = column in values and (values[column] is None or not str(values[column]).strip())
        found, problem = ("", "") if empty else text(column)
        if problem:
            return "", problem
        texts[column] = "" if once and found.strip() in texts.values() else found.strip()
    if not any(texts.values()):
        return "", f"nothing is asked: {', '.join(map(repr, texts))} are empty"
    # Not `str.format`, for which some names of columns are places and attributes.
    return "".join(words + ("" if name is None else texts[name]) for words, name, *_ in parts).strip(), ""
