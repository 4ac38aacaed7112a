"""Prompts with a place for a column's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter


def columns_of(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names. ValueError where it cannot be taken apart or has something else in braces."""
    named = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(prompt) if name is not None]
    for name, spec, conversion in named:
        if not name or spec or conversion or not name.replace("_", "a").isalnum():
            raise ValueError(f"expected {{column}} in braces, got {{{name}}}")
    return tuple(dict.fromkeys(name for name, _, _ in named))


def filled(prompt: str, values: Mapping[str, object], text: Callable[[str], tuple[str, str]]) -> tuple[str, str]:
    """The prompt of a row, or '' and why there is none; `text` gives a column's, or why it has none.

    A column may be empty as long as not all are; a text that stands twice is asked once.
    """
    texts: dict[str, str] = {}
    for column in columns_of(prompt):
        empty = column in values and (values[column] is None or not str(values[column]).strip())
        found, problem = ("", "") if empty else text(column)
        if problem:
            return "", problem
        texts[column] = "" if found.strip() in texts.values() else found.strip()
    if not any(texts.values()):
        return "", f"nothing is asked: {', '.join(map(repr, texts))} are empty"
    return prompt.format(**texts).strip(), ""
