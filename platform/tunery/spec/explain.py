"""pydantic's errors, and guesses at what was meant, in our words: what, got, known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_LONGEST_WORD = 80


# Names of other programs and short forms, which no measure of likeness would find.
_SYNONYMS = {
    "bs": "batch_size",
    "epoch": "epochs",
    "gradient_accumulation_steps": "accumulation",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip_norm",
    "max_seq_length": "max_length",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
}


def suggest(got: object, known: Iterable[str]) -> str:
    """`did you mean 'cola'? known: cola, mnli`."""
    names = tuple(dict.fromkeys(known))
    # Comparing is quadratic in the lengths, and nobody mistypes that many letters.
    section, dot, name = str(got)[:_LONGEST_WORD].rpartition(".")
    meant = section + dot + _SYNONYMS.get(name, name)
    # Within the same section first: all paths of a section look alike by the section's name.
    near = [known[len(section + dot) :] for known in names if known.startswith(section + dot)]
    close = [section + dot + match for match in get_close_matches(_SYNONYMS.get(name, name), near, n=1)]
    close = close or get_close_matches(meant, names, n=1, cutoff=0.75 if dot else 0.6)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"


def show(value: object) -> str:
    """A value as it stands in a message."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= _LONGEST_WORD else value[:_LONGEST_WORD] + "...")
        case _:
            text = str(value)
            return text if len(text) <= 40 else text[:40] + "..."


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "nothing",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_PATTERNS = {
    r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$": "lower-case letters, digits, '.', '_' and '-' between letters or digits",
    r"^[a-z][a-z0-9_-]*$": "a lower-case letter, then lower-case letters, digits, '_' and '-'",
    r"^[A-Za-z0-9._/-]+$": "a commit, tag or branch",
}


def _literal(error: Mapping[str, Any], value: object) -> str:
    known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
    if not isinstance(value, str):
        return f"expected one of {', '.join(known)}, got {show(value)}"
    return f"unknown value {show(value)}; {suggest(value, known)}"


def _tag(error: Mapping[str, Any], value: object) -> str:
    known = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
    got = value.get("method") if isinstance(value, dict) else value
    return f"unknown method {show(got)}; {suggest(got, known)}"


def _bound(error: Mapping[str, Any], value: object) -> str:
    words, key = _BOUNDS[error["type"]]
    return f"expected a value {words} {error['ctx'][key]:g}, got {show(value)}"


def _too_short(error: Mapping[str, Any], value: object) -> str:
    del value
    least, got = error["ctx"]["min_length"], error["ctx"]["actual_length"]
    return f"expected at least {least} item{'s' if least != 1 else ''}, got {got}"


def _too_long(error: Mapping[str, Any], value: object) -> str:
    del value
    got = error["ctx"].get("actual_length")
    return f"expected at most {error['ctx']['max_length']} items, got {got if got is not None else 'more'}"


def _string_length(error: Mapping[str, Any], value: object) -> str:
    context = error["ctx"]
    if "min_length" in context:
        return f"expected text, got {show(value)}"
    return f"expected at most {context['max_length']} letters, got {len(str(value))}"


def _pattern(error: Mapping[str, Any], value: object) -> str:
    pattern = error["ctx"]["pattern"]
    return f"expected {_PATTERNS.get(pattern, f'text that matches {pattern}')}, got {show(value)}"


_SPECIAL: Mapping[str, Callable[[Mapping[str, Any], object], str]] = {
    "literal_error": _literal,
    "union_tag_invalid": _tag,
    **dict.fromkeys(_BOUNDS, _bound),
    "too_short": _too_short,
    "too_long": _too_long,
    "string_too_short": _string_length,
    "string_too_long": _string_length,
    "string_pattern_mismatch": _pattern,
}


def explain(error: Mapping[str, Any], value: object, words: str = "") -> str:
    """One of pydantic's errors about a value, which may be one of some `words` too.

    Missing and unknown keys are told by `tunery.spec.load`.
    """
    kind = error["type"]
    if kind in _SPECIAL:
        return _SPECIAL[kind](error, value)
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}{f' or {words}' if words else ''}, got {show(value)}"
    if kind == "value_error":
        return f"expected {error['ctx']['error']!s}"
    message = str(error["msg"])
    return f"{message[:1].lower()}{message[1:]}, got {show(value)}"
