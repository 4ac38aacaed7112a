"""Prompts with a place for a column's text."""

from __future__ import annotations

from string import Formatter


def columns_of(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names. ValueError where it cannot be taken apart or has something else in braces."""
    named = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(prompt) if name is not None]
    for name, spec, conversion in named:
        if not name or spec or conversion or not name.replace("_", "a").isalnum():
            raise ValueError(f"expected {{column}} in braces, got {{{name}}}")
    return tuple(dict.fromkeys(name for name, _, _ in named))
