"""A run as it lies on disk: the plan it came from and the state it is in.

    TUNERY_HOME/runs/<run_id>/          run_id: NAME-DIGEST; of a spec that was started over, NAME-DIGEST.2 and so on
        plan.json            the compiled plan, written once by the client
        profile              name of the profile it was first started with, and keeps
        state.json           RunState, replaced whole by the driver at every change worth showing
        driver.lock          held (flock) by the driver while it lives: nobody else may drive the run; holds its pid
        offline              its presence says that the run asks no hub: all was fetched before
        models.json          the commit of each model of a hub, once it was found: the run keeps it
        stop                 its presence asks the driver to stop
        logs/driver.log      what the driver and Ray print;  logs/<study>/<number>.log  one trial
        tune/<study>/        Ray Tune's experiment, a folder a trial; a restart reads Optuna's database instead
        store.json           where the next two are instead, if the profile names a store; the run keeps it
        begin/               a copy of the checkpoint that the trials begin with, where they begin with one
        checkpoints/<study>/<number>/
        adapters/<study>/<number>/
        packs/<pack>.json    what its seats take in memory, as it was last foreseen
        spool/               every tracking entry, shipped to MLflow or not: the run's own record
        report/              workbook, page, pictures: written when the run ends

No heavy import: the client reads states with it, and the driver writes them.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from storage.stores import Address, Place
from tunery.errors import ConflictError, InputError, NotFoundError

TrialStatus = Literal["waiting", "running", "finished", "pruned", "failed", "stopped"]
StudyStatus = Literal["waiting", "running", "finished", "failed", "stopped"]
RunStatus = Literal["starting", "running", "finished", "failed", "stopped", "interrupted"]

Value = str | int | float | bool | None

ENDED: frozenset[RunStatus] = frozenset({"finished", "failed", "stopped", "interrupted"})
"""Statuses of a run that nothing works on."""
_FINAL: frozenset[TrialStatus] = frozenset({"finished", "pruned", "failed"})
"""Those of a trial that does not go on."""

SEAT_STATE = "seat.safetensors"
"""In a checkpoint: the engine's state of the seat."""
REPORTS = "reports.json"
"""In a checkpoint: every report of the seat so far. The best checkpoint holds the files of the PEFT adapter too."""

COUNTED = "counted.json"
"""In a checkpoint: what the seat has counted since its last evaluation; one between two of them is no use without."""
OF = "of.json"
"""In a checkpoint: what it is of (`tunery.begin.Origin`)."""
TRAINING_FILES = frozenset({SEAT_STATE, REPORTS, COUNTED, OF})
"""What a trial goes on from; the other files of a checkpoint are its adapter's."""

_STORE = "store.json"
LOCK_FD = "TUNERY_LOCK_FD"
"""Environment variable with which a client hands the driver it starts a lock that it already holds: so there is no
moment in which a started run has no driver, however long the driver takes to import what it needs."""


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
    started_at: float | None = None
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
        if self.started_at is None or self.status in _FINAL:
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


class RunFolder:
    """The folder of one run."""

    def __init__(self, root: Path, *, store: Place | None = None) -> None:
        """`store`: for a process of another machine, which does not see what the folder says of it."""
        self.root = root
        self.run_id = root.name
        self._store = store

    @property
    def name(self) -> str:
        """The run's name, as its spec has it."""
        return name_of(self.run_id)

    @property
    def plan_file(self) -> Path:
        return self.root / "plan.json"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def stop_file(self) -> Path:
        return self.root / "stop"

    @property
    def offline_file(self) -> Path:
        return self.root / "offline"

    @property
    def models_file(self) -> Path:
        return self.root / "models.json"

    @property
    def driver_log(self) -> Path:
        return self.root / "logs" / "driver.log"

    @property
    def store(self) -> Place:
        """Where its checkpoints are: the folder itself, or the store that it was begun with."""
        if self._store is not None:
            return self._store
        try:
            kept = json.loads((self.root / _STORE).read_bytes())
        except FileNotFoundError:
            return self.root
        return Address(kept["url"], kept["settings"]) if "url" in kept else Path(kept["folder"])

    def keep_store(self, place: Place) -> None:
        """Have its checkpoints there from now on."""
        kept = asdict(place) if isinstance(place, Address) else {"folder": str(place)}
        write_whole(self.root / _STORE, json.dumps(kept, indent=1).encode())

    @property
    def begin(self) -> Place:
        return self.store / "begin"

    def trial_log(self, study: str, number: int) -> Path:
        return self.root / "logs" / study / f"{number}.log"

    def checkpoints(self, study: str, number: int) -> Place:
        return self.store / "checkpoints" / study / str(number)

    def adapter(self, study: str, number: int) -> Path:
        return self.root / "adapters" / study / str(number)

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def state(self) -> RunState:
        """The state as last written. NotFoundError where there is none yet."""
        try:
            return RunState.model_validate_json(self.state_file.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(f"no state in {self.root}: the run has not started") from None

    def write_state(self, state: RunState) -> None:
        write_whole(self.state_file, state.model_dump_json(indent=1).encode())

    def current(self, *, name: str = "") -> RunState:
        """The state as it is: one that says it goes on while no driver lives is `interrupted`, or `stopped` if asked.

        `name` is the run's name for a run whose driver has written nothing yet.
        """
        # The order matters: a driver writes its last state before it lets the lock go, so a state read after the
        # lock was seen free is the last one.
        driven = self.driven()
        try:
            state = self.state()
        except NotFoundError:
            state = RunState(run_id=self.run_id, name=name)
        if driven or state.status in ENDED:
            return state
        return state.model_copy(update={"status": "stopped" if self.stop_file.exists() else "interrupted"})

    def driven(self) -> bool:
        """Whether a driver lives: the lock goes with its process, however that ended."""
        try:
            with self._lock_file.open("r") as handle:
                return not _try_lock(handle, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def driver_pid(self) -> int | None:
        """The process that drives the run, or None where nobody does."""
        if not self.driven():
            return None
        with suppress(ValueError):
            return int(self._lock_file.read_text().partition("\n")[0])
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the run's driver. ConflictError where another process is.

        A lock handed over by the process that started this one (`LOCK_FD`) is taken on as it is.
        """
        with self._inherited() or self.take_lock() as handle:
            # Ray's processes must not keep the lock when this one has died.
            os.set_inheritable(handle.fileno(), False)
            self.note_driver(handle, os.getpid())
            try:
                yield
            finally:
                # Closing would not do where a forked child still holds a copy of the handle.
                fcntl.flock(handle, fcntl.LOCK_UN)

    def take_lock(self) -> IO[str]:
        """The lock's handle, locked: for a client that hands it to the driver it starts, and then closes its own.

        ConflictError where a driver holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        handle = self._lock_file.open("a+")
        # Whoever asks `driven` holds a shared lock for a moment: only an exclusive one is a driver's.
        while not _try_lock(handle, fcntl.LOCK_EX):
            if not _try_lock(handle, fcntl.LOCK_SH):
                handle.close()
                raise ConflictError(f"run {self.run_id} has a driver already")
            fcntl.flock(handle, fcntl.LOCK_UN)
        return handle

    def note_driver(self, handle: IO[str], pid: int) -> None:
        """Write beside the lock, whose handle it is, which process drives the run."""
        handle.truncate(0)
        handle.write(f"{pid}\n")
        handle.flush()

    @property
    def _lock_file(self) -> Path:
        return self.root / "driver.lock"

    def _inherited(self) -> IO[str] | None:
        number = os.environ.pop(LOCK_FD, "")
        try:
            here, there = os.fstat(int(number)), self._lock_file.stat()
        except (OSError, ValueError):
            return None
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return None
        return os.fdopen(int(number), "a+")


def _try_lock(handle: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def run_folders(runs: Path) -> tuple[RunFolder, ...]:
    """All runs of a home (`Home.runs`), the newest first."""
    plans = sorted(runs.glob("*/plan.json"), key=lambda plan: (-plan.stat().st_mtime, plan.parent.name))
    return tuple(RunFolder(plan.parent) for plan in plans)


def named_run(runs: Path, text: str) -> RunFolder | None:
    """The run with this id, or the newest one of this name where only one spec has it."""
    ids = [folder.run_id for folder in run_folders(runs)]
    named = [run for run in ids if run == text] or _newest(run for run in ids if name_of(run) == text)
    return RunFolder(runs / named[0]) if len(named) == 1 else None


def find_run(runs: Path, text: str) -> RunFolder:
    """The run with this id, name or beginning of an id; of a spec that was started over, the newest.

    NotFoundError; InputError where several fit.
    """
    return RunFolder(runs / chosen([folder.run_id for folder in run_folders(runs)], text))


def chosen(ids: Sequence[str], text: str) -> str:
    """Of the ids of runs the one that a user means by an id, a name or the beginning of an id.

    NotFoundError; InputError where several fit.
    """
    if text in ids:
        return text
    found = _newest(run for run in ids if name_of(run) == text)
    found = found or _newest(run for run in ids if text and run.startswith(text))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{text!r} may be any of: {', '.join(sorted(found))}")
    known = f"; `platform ls` lists the {len(ids)} there are" if ids else "; there are no runs yet"
    close = get_close_matches(text, [name for run in ids for name in (run, name_of(run))], n=1)
    raise NotFoundError(f"no run {text!r}{f'; did you mean {close[0]!r}?' if close else known}")


def _newest(ids: Iterable[str]) -> list[str]:
    """Of the runs of each spec."""
    return list({first_of(run): run for run in sorted(ids, key=generation)}.values())


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
