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
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from storage.files import write_whole
from storage.stores import Address, Place
from tunery.errors import NotFoundError
from tunery.runs.ids import chosen, name_of, newest
from tunery.runs.lock import DriverLock
from tunery.runs.states import ENDED, RunState

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


class RunFolder:
    """The folder of one run."""

    def __init__(self, root: Path, *, store: Place | None = None) -> None:
        """`store`: for a process of another machine, which does not see what the folder says of it."""
        self.root = root
        self.run_id = root.name
        self.lock = DriverLock(root / "driver.lock")
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
        """Whether a driver lives."""
        return self.lock.held()


def run_folders(runs: Path) -> tuple[RunFolder, ...]:
    """All runs of a home (`Home.runs`), the newest first."""
    plans = sorted(runs.glob("*/plan.json"), key=lambda plan: (-plan.stat().st_mtime, plan.parent.name))
    return tuple(RunFolder(plan.parent) for plan in plans)


def named_run(runs: Path, text: str) -> RunFolder | None:
    """The run with this id, or the newest one of this name where only one spec has it."""
    ids = [folder.run_id for folder in run_folders(runs)]
    named = [run for run in ids if run == text] or newest(run for run in ids if name_of(run) == text)
    return RunFolder(runs / named[0]) if len(named) == 1 else None


def find_run(runs: Path, text: str) -> RunFolder:
    """The run with this id, name or beginning of an id; of a spec that was started over, the newest.

    NotFoundError; InputError where several fit.
    """
    return RunFolder(runs / chosen([folder.run_id for folder in run_folders(runs)], text))
