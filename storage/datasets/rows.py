"""Rows as the rest of the program sees them, and the checks that a raw record passes to become one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random
from typing import Literal, NamedTuple

from storage.errors import DataError
from storage.prompts import columns_of, filled

BadRows = Literal["fail", "skip"]


@dataclass(frozen=True)
class Fields:
    """Which columns hold what."""

    text: str
    text_pair: str | None
    label: str
    labels: tuple[str, ...]
    """Label names in the order of their numbers; empty for a regression, and where `prompt` is given."""
    prompt: str = ""
    """What is asked, with `{column}` where a column's text goes, of rows whose label is an answer; `text` and
    `text_pair` are then not read."""

    @property
    def columns(self) -> tuple[str, ...]:
        if self.prompt:
            return tuple(dict.fromkeys((*columns_of(self.prompt), self.label)))
        return tuple(column for column in (self.text, self.text_pair, self.label) if column is not None)


class Row(NamedTuple):
    """One checked example."""

    text: str
    text_pair: str | None
    label: float
    """The label's number, or the value of a regression; 0 where there is an answer."""
    answer: str | None = None
    """What a model is to answer; `text` is what it is asked."""


class Record(NamedTuple):
    """One raw record and where it stands: `file.csv:12`, `file.parquet:row 11`."""

    place: str
    values: Mapping[str, object] | str
    """Column -> value; a string says why the record could not even be taken apart."""


@dataclass(frozen=True)
class Rows:
    """The rows of one split."""

    rows: Sequence[Row]
    origin: str
    skipped: tuple[str, ...]
    """`file:line: why`, one for each bad row that was left out."""
    fingerprint: str
    """SHA-256 of the rows' content, independent of where they came from."""

    def chosen(self, indices: Iterable[int]) -> Rows:
        """These rows only. DataError where they are none."""
        return from_rows([self.rows[index] for index in indices], self.origin, skipped=self.skipped)

    def sampled(self, limit: int | None, seed: int) -> Rows:
        """At most `limit`, drawn with the seed, in their order; a larger limit keeps every row of a smaller one."""
        if limit is None or limit >= len(self.rows):
            return self
        return from_rows(self.rows, self.origin, skipped=self.skipped, limit=limit, seed=seed)


def same(row: Row) -> tuple[str, str]:
    """What two rows have in common that are the same input: their texts, whatever their labels."""
    return row.text.strip(), (row.text_pair or "").strip()


def from_rows(
    rows: Iterable[Row | tuple[str, str | None, float]],
    origin: str,
    *,
    skipped: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
) -> Rows:
    """Rows that are known to be good. DataError where there are none."""
    kept = _sample([Row(*row) for row in rows], limit, Random(seed))
    if not kept:
        why = f": all {len(skipped)} rows are bad, the first one: {skipped[0]}" if skipped else ""
        raise DataError(f"{origin} has no rows{why}")
    return Rows(kept, origin, tuple(skipped), _fingerprint(kept))


def checked(
    records: Iterable[Record], fields: Fields, origin: str, *, bad_rows: BadRows, limit: int | None, seed: int
) -> Rows:
    """Raw records, each checked. DataError for the first bad one unless `bad_rows` is "skip"."""
    good: list[Row] = []
    skipped: list[str] = []
    for place, values in records:
        row = _row(values, fields)
        if isinstance(row, Row):
            good.append(row)
        elif bad_rows == "skip":
            skipped.append(f"{place}: {row}")
        else:
            raise DataError(f"{place}: {row} (data.bad_rows: skip leaves such rows out)")
    return from_rows(good, origin, skipped=skipped, limit=limit, seed=seed)


def _sample(rows: list[Row], limit: int | None, rng: Random) -> list[Row]:
    """At most `limit` rows in their order. The same seed nests: a larger limit keeps every row of a smaller one."""
    if limit is None or limit >= len(rows):
        return rows
    order = list(range(len(rows)))
    rng.shuffle(order)
    return [rows[index] for index in sorted(order[:limit])]


def _fingerprint(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        # repr quotes what it prints, so that no two different rows look the same.
        plain = tuple(row) if row.answer is not None else tuple(row)[:3]
        digest.update(repr(plain).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _row(values: Mapping[str, object] | str, fields: Fields) -> Row | str:
    """The row, or why there is none."""
    if isinstance(values, str):
        return values
    if fields.prompt:
        return _asked(values, fields)
    texts: list[str | None] = []
    for column in (fields.text, fields.text_pair):
        if column is None:
            texts.append(None)
            continue
        value, problem = _text(values, column)
        if problem:
            return problem
        texts.append(value)
    if fields.label not in values:
        return _absent(values, fields.label)
    label = _class(values[fields.label], fields) if fields.labels else _number(values[fields.label], fields.label)
    if isinstance(label, str):
        return label
    assert texts[0] is not None
    return Row(texts[0], texts[1], label)


def _asked(values: Mapping[str, object], fields: Fields) -> Row | str:
    """A row with an answer."""
    asked, problem = filled(fields.prompt, values, lambda column: _text(values, column))
    if problem:
        return problem
    answer, problem = _text(values, fields.label)
    return problem or Row(asked, None, 0.0, answer.strip())


def _text(values: Mapping[str, object], column: str) -> tuple[str, str]:
    if column not in values:
        return "", _absent(values, column)
    value = values[column]
    if value is None:
        return "", f"column {column!r} has no text"
    if not isinstance(value, str):
        return "", f"column {column!r} is not text: got {value!r} ({type(value).__name__})"
    if not value.strip():
        return "", f"column {column!r} is empty"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "", f"column {column!r} is not valid Unicode: it has half a surrogate pair"
    return value, ""


def _absent(values: Mapping[str, object], column: str) -> str:
    return f"no column {column!r}; there is: {', '.join(map(str, values)) or 'nothing'}"


def _class(value: object, fields: Fields) -> float | str:
    labels = fields.labels
    # Where a name is a number itself, a number is a name, in every kind of file.
    numbered = not any(_is_finite(label) for label in labels)
    known = ", ".join(f"{index} = {label}" if numbered else label for index, label in enumerate(labels))
    if value is None or value == "":
        return f"column {fields.label!r} has no label; known: {known}"
    if isinstance(value, str) and value in labels:
        return float(labels.index(value))
    number = _parsed(value)
    if number is not None and numbered and number in range(len(labels)):
        return number
    if number is not None and f"{number:.15g}" in labels:
        return float(labels.index(f"{number:.15g}"))
    close = get_close_matches(str(value), labels, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown label {value!r} in column {fields.label!r}; {hint}known: {known}"


def _is_finite(value: object) -> bool:
    number = _parsed(value)
    return number is not None and math.isfinite(number)


def _number(value: object, column: str) -> float | str:
    if value is None or value == "":
        return f"column {column!r} has no value"
    number = _parsed(value)
    if number is None or not math.isfinite(number):
        return f"column {column!r} is no finite number: got {value!r}"
    return number


def _parsed(value: object) -> float | None:
    """The number a value stands for. A truth value is none: it is nobody's label number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def data_fingerprint(splits: Mapping[str, str]) -> str:
    """One fingerprint of several splits: split -> SHA-256 of its rows (`Rows.fingerprint`)."""
    return hashlib.sha256("".join(f"{name}:{splits[name]}" for name in sorted(splits)).encode()).hexdigest()
