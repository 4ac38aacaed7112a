"""What seats, packs and the driver tell each other through the desk. Plain frozen data: no Ray, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunery.tasks import Task

Ending = Literal["finished", "pruned", "failed", "stopped"]
Value = str | int | float | bool | None

METRIC = "objective"
"""Key of a Tune result: the trial's best objective so far, in the task's own direction."""
TIME = "epoch"
NUMBER = "number"
"""Key of a Tune config: the trial's number in the Optuna study."""
DRAW = "draw"
"""Key of a Tune config: dotted path -> value."""
ORIGIN = "origin"
"""Key of a Tune config, and of an Optuna trial's user attributes: where the draw is from; '': the sampler."""
RERUN_OF = "rerun_of"
"""The same: number of the trial whose configuration is trained again with another seed; None: a trial of its own."""


@dataclass(frozen=True)
class SeatName:
    """A trial of a study."""

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study}/{self.number}"


@dataclass(frozen=True)
class StudyData:
    """A study's data, tokenised and ready to be memory-mapped."""

    task: Task
    train: Path
    """Token file of the training rows."""
    evals: Mapping[str, Path]
    """Split -> token file."""
    tokenizer: Path
    """Folder the tokenizer was saved to."""
    fingerprint: str
    """Of the evaluation rows: scores of two models may be compared only where it is the same."""
    train_rows: int
    train_tokens: int
    eval_rows: int
    skipped: tuple[str, ...]
    """Bad rows that were left out, each with its file, line and reason."""
    notes: tuple[str, ...] = ()
    """What a user should know of the data: repeats, answers that were cut."""
    stop: tuple[int, ...] = ()
    """Of a task with answers: token ids at which one ends."""
    form: Literal["", "chat", "plain"] = ""
    """Of a task with answers: how questions are put to the model."""

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, with how many rows were left out."""
        count = len(self.skipped)
        bad = f"{count:,} bad rows are left out; they are named in MLflow's skipped_rows.txt"
        return (bad, *self.notes) if count else self.notes


@dataclass(frozen=True)
class SeatOrder:
    """What a pack needs to train a seat."""

    name: SeatName
    base: str
    """Key of the base it trains on: only a pack of the same base can take it."""
    trial: str
    """The TrialConfig as JSON."""
    draw: Mapping[str, Value]
    data: StudyData
    origin: str = ""
    """Where the draw is from: see ORIGIN."""
    rerun_of: int | None = None
    """See RERUN_OF."""


@dataclass(frozen=True)
class Report:
    """One evaluation of a seat. Made once, at its checkpoint, and kept there: a replay is equal to the first."""

    index: int
    """Counts the seat's evaluations from 0."""
    step: int
    steps: int
    epoch: float
    epochs: int
    objective: float
    """Best so far, in the task's own direction."""
    best: bool
    """Whether this evaluation is the best so far."""
    final: bool
    metrics: Mapping[str, float]
    """All metrics of this evaluation: the task's, losses, rates, memory."""
    at_ms: int


@dataclass(frozen=True)
class Seated:
    """The pack has taken the seat, at `step` (0, or its newest checkpoint's)."""

    name: SeatName
    step: int
    at_ms: int


@dataclass(frozen=True)
class Progressed:
    """Between evaluations, now and then."""

    name: SeatName
    step: int
    steps: int
    epoch: float
    examples_per_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class Reported:
    name: SeatName
    report: Report


@dataclass(frozen=True)
class Failed:
    """The seat cannot go on: it diverged, or its configuration does not fit. Its neighbours go on."""

    name: SeatName
    reason: str
    at_ms: int


@dataclass(frozen=True)
class Declined:
    """The pack has no room for a seat that it was told to take: the seat waits again, before all others.

    The pack is told to take none until one of its seats has left. For a pack with no seat in it this is for ever: it
    sends `Failed` in its place.
    """

    name: SeatName
    reason: str


PackMessage = Seated | Progressed | Reported | Failed | Declined


@dataclass(frozen=True)
class Joined:
    """A trial has asked for a seat."""

    order: SeatOrder
    at_ms: int


@dataclass(frozen=True)
class Known:
    """A study goes on: this trial of it had ended before."""

    name: SeatName
    ending: Ending
    draw: Mapping[str, Value]
    origin: str = ""
    rerun_of: int | None = None


@dataclass(frozen=True)
class Left:
    """A trial has ended."""

    name: SeatName
    ending: Ending
    reason: str
    at_ms: int


Event = Seated | Progressed | Reported | Failed | Joined | Known | Left


@dataclass(frozen=True)
class Orders:
    """The desk's answer to a pack."""

    take: tuple[SeatOrder, ...] = ()
    drop: tuple[SeatName, ...] = ()
    close: bool = False

    def and_then(self, more: Orders) -> Orders:
        """These and those of a later answer."""
        return Orders(self.take + more.take, self.drop + more.drop, self.close or more.close)


@dataclass(frozen=True)
class Ended:
    """The desk's answer to a seat that gets no more reports."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True)
class Events:
    """What happened since a place in the desk's order of events."""

    upto: int
    events: tuple[tuple[str, Event], ...] = field(default=())
    """(pack or '', event)"""
