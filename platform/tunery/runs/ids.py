"""Ids of runs: NAME-DIGEST; of a spec that was started over, NAME-DIGEST.2 and so on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from tunery.errors import InputError, NotFoundError


def name_of(run_id: str) -> str:
    """The spec's name."""
    return run_id.rpartition("-")[0]


def first_of(run_id: str) -> str:
    """The id that the first run of this one's spec has."""
    return name_of(run_id) + "-" + run_id.rpartition("-")[2].partition(".")[0]


def generation(run_id: str) -> int:
    """How often its spec had been started then, this time included."""
    number = run_id.rpartition("-")[2].partition(".")[2]
    return int(number) if number.isdecimal() else 1


def chosen(ids: Sequence[str], text: str) -> str:
    """Of the ids of runs the one that a user means by an id, a name or the beginning of an id.

    NotFoundError; InputError where several fit.
    """
    if text in ids:
        return text
    found = newest(run for run in ids if name_of(run) == text)
    found = found or newest(run for run in ids if text and run.startswith(text))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{text!r} may be any of: {', '.join(sorted(found))}")
    known = f"; `platform ls` lists the {len(ids)} there are" if ids else "; there are no runs yet"
    close = get_close_matches(text, [name for run in ids for name in (run, name_of(run))], n=1)
    raise NotFoundError(f"no run {text!r}{f'; did you mean {close[0]!r}?' if close else known}")


def newest(ids: Iterable[str]) -> list[str]:
    """Of the runs of each spec."""
    return list({first_of(run): run for run in sorted(ids, key=generation)}.values())
