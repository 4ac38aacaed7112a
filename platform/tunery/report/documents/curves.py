"""What every evaluation of a run's trials gave and when, from the record in the run's own folder: no server is asked.

The tracking spool holds each report in the order it happened, and is kept when it has been shipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tunery.cluster.tracking.spool import RECORDS, Record, read_records
from tunery.runs import RunFolder

Trial = tuple[str, int]
"""A study's name and a trial's number."""


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    step: int
    at_s: float
    """Seconds since the epoch."""
    cost_s: float
    """Seconds that the trial had been under way, over all its starts: from having a place to this report."""
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """The evaluations of a run."""

    points: Mapping[Trial, tuple[Point, ...]] = field(default_factory=dict)
    """In the order they were made."""
    seconds: Mapping[Trial, float] = field(default_factory=dict)
    """That each trial was under way; the time in which nothing drove the run does not count."""
    studies: frozenset[str] = frozenset()
    """Those that have begun, and so have a run of their own in the tracker."""

    def of(self, study: str, number: int) -> tuple[Point, ...]:
        return self.points.get((study, number), ())


def read(folder: RunFolder) -> Curves:
    """Those of a run; empty before it has begun. Lines that are no records are passed over."""
    try:
        return from_records(record for record, _ in read_records(folder.spool / RECORDS, 0) if record is not None)
    except FileNotFoundError:
        return Curves()


def from_records(records: Iterable[Record]) -> Curves:
    """Those of a spool's records, in their order."""
    points: dict[Trial, list[Point]] = {}
    spent: dict[Trial, float] = {}
    since: dict[Trial, float] = {}
    studies: set[str] = set()

    def passed(trial: Trial, at_s: float) -> float:
        # What is recalled after a restart has its old times: it costs nothing again.
        spent[trial] = spent.get(trial, 0.0) + max(0.0, at_s - since.get(trial, at_s))
        return spent[trial]

    for record in records:
        study, number, at_s = record["study"], record["number"], record["at_ms"] / 1000
        if number is None:
            if record["kind"] == "study_started":
                studies.add(study)
            continue
        trial = (study, number)
        match record["kind"]:
            case "trial_started":
                # Started again, it has lost what came after its last report, and the time until now was nobody's.
                since[trial] = at_s
            case "metrics":
                cost_s = passed(trial, at_s)
                since[trial] = max(at_s, since.get(trial, at_s))
                points.setdefault(trial, []).append(Point(record["step"], at_s, cost_s, record["values"]))
            case "ended":
                passed(trial, at_s)
                since.pop(trial, None)
            case _:
                pass
    return Curves({trial: tuple(found) for trial, found in points.items()}, spent, frozenset(studies))
