"""The state that a run is in, as its driver writes it and a client reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

TrialStatus = Literal["waiting", "running", "finished", "pruned", "failed", "stopped"]
StudyStatus = Literal["waiting", "running", "finished", "failed", "stopped"]
RunStatus = Literal["starting", "running", "finished", "failed", "stopped", "interrupted"]

Value = str | int | float | bool | None

ENDED: frozenset[RunStatus] = frozenset({"finished", "failed", "stopped", "interrupted"})
"""Statuses of a run that nothing works on."""
FINAL: frozenset[TrialStatus] = frozenset({"finished", "pruned", "failed"})
"""Those of a trial that does not go on."""


class _State(BaseModel):
    # Stored data is read leniently: a newer driver may have written fields this client does not know.
    model_config = ConfigDict(extra="ignore", frozen=True)


class TrialState(_State):
    """One trial, as last heard of."""

    number: int
    """Optuna's trial number, from 0."""
    status: TrialStatus = "waiting"
    config: Mapping[str, Value] = Field(default_factory=dict)
    """The draw: dotted path -> value."""
    pack: str = ""
    """The pack whose seat it has; empty while it waits."""
    epoch: float = 0.0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    objective: float | None = None
    """Its best so far, in the task's own direction."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    """All metrics at that best evaluation, by the task's names, and `loss`."""
    examples_per_s: float | None = None
    tokens_per_s: float | None = None
    started_at: float | None = None
    """It had its first place in a pack; None: it waits for that."""
    ended_at: float | None = None
    """Seconds since the epoch."""
    paused_s: float = 0.0
    """Since it started, in which no driver ran."""
    error: str = ""
    origin: str = ""
    """Where its values are from: `spec`, `registry MODEL/VERSION` or `trial NUMBER`; empty: the sampler."""
    rerun_of: int | None = None
    """Number of the trial whose configuration it repeats with another seed."""

    def seconds(self, now: float) -> float | None:
        """That it has been under way, without pauses; None where it has not started."""
        if self.started_at is None:
            return None
        return max(0.0, (self.ended_at or now) - self.started_at - self.paused_s)

    def resumed(self, since: float, now: float) -> Self:
        """As it goes on after a time without a driver, if it does."""
        if self.started_at is None or self.status in FINAL:
            return self
        pause = max(0.0, now - (self.ended_at or since))
        return self.model_copy(update={"ended_at": None, "paused_s": self.paused_s + pause})


class StudyState(_State):
    """One study: a task in a matrix cell."""

    name: str
    task: str
    cell: Mapping[str, Value] = Field(default_factory=dict)
    status: StudyStatus = "waiting"
    objective: str = ""
    """Name of the metric."""
    direction: Literal["maximise", "minimise"] = "maximise"
    """Where it is to go."""
    metrics: tuple[str, ...] = ()
    """The task's own, of what was measured."""
    planned: int = 0
    """Trials asked for."""
    trials: tuple[TrialState, ...] = ()
    best: int | None = None
    """Number of the best trial; where the best configurations were run again, of the best one's best run."""
    model: str | None = None
    model_version: str | None = None
    champion: bool | None = None
    """Whether this run's version holds the alias now; None before the gate has decided."""
    verdict: str = ""
    """What the gate said and why."""
    data_fingerprint: str = ""
    """Of the evaluation rows; empty before they are read."""
    notes: tuple[str, ...] = ()
    """What a user should know of the data: repeats, bad rows that were left out, answers that were cut."""
    error: str = ""

    def resumed(self, since: float, now: float) -> Self:
        """As it is tried again after a time without a driver."""
        trials = tuple(trial.resumed(since, now) for trial in self.trials)
        return self.model_copy(update={"status": "waiting", "error": "", "trials": trials})


class RunState(_State):
    """One run."""

    run_id: str
    name: str
    status: RunStatus = "starting"
    phase: str = ""
    """What it is doing, in words: 'starting Ray', 'tokenising cola', ..."""
    tracking_uri: str = ""
    studies: tuple[StudyState, ...] = ()
    started_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    paused_s: float = 0.0
    """Since it started, in which no driver ran: it was stopped, or had died."""
    error: str = ""
    unsent: bool = False
    """Whether MLflow lacks something of it. A run that has finished goes on then, and brings it there."""

    def seconds(self, now: float) -> float:
        """That it has been under way, without pauses."""
        return max(0.0, (self.ended_at or now) - self.started_at - self.paused_s) if self.started_at else 0.0

    def resumed(self, now: float) -> Self:
        """As a new driver takes it up: what had failed or was stopped is tried again, what is finished stays."""
        since = self.ended_at or self.updated_at
        studies = [study if study.status == "finished" else study.resumed(since, now) for study in self.studies]
        pause = max(0.0, now - since)
        again = {"studies": tuple(studies), "paused_s": self.paused_s + pause, "ended_at": None, "error": ""}
        return self.model_copy(update=again)
