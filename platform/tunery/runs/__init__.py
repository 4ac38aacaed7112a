"""Runs: a folder each, the state that a driver writes there, the lock that it holds, and what they are called.

No heavy import: the client reads states with it.
"""

from tunery.runs.folder import (
    COUNTED,
    OF,
    REPORTS,
    SEAT_STATE,
    TRAINING_FILES,
    RunFolder,
    find_run,
    named_run,
    run_folders,
)
from tunery.runs.ids import chosen, first_of, generation, name_of
from tunery.runs.lock import LOCK_FD, DriverLock
from tunery.runs.states import (
    ENDED,
    FINAL,
    RunState,
    RunStatus,
    StudyState,
    StudyStatus,
    TrialState,
    TrialStatus,
    Value,
)

__all__ = [
    "COUNTED", "ENDED", "FINAL", "LOCK_FD", "OF", "REPORTS", "SEAT_STATE", "TRAINING_FILES", "DriverLock", "RunFolder",
    "RunState", "RunStatus", "StudyState", "StudyStatus", "TrialState", "TrialStatus", "Value", "chosen", "find_run",
    "first_of", "generation", "name_of", "named_run", "run_folders",
]  # fmt: skip
