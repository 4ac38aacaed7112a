"""Every error a user can meet, each with the exit code the command line ends with.

    TuneryError                1   a fault of ours: please report it
    ├── InputError             2   the user's input is wrong; nothing was contacted
    │   ├── SpecError              one or more mistakes in a spec, each with file:line:column
    │   └── ProfileError           a mistake in the profile
    ├── NotFoundError          3   no such run, model, version or trial
    ├── ConflictError          4   refused: it would overwrite or contradict what is there
    ├── RunError               5   the run itself ended badly (every trial of a study failed, the driver died)
    ├── UnreachableError       6   a server or a store does not answer
    └── MissingExtraError      7   a part of tunery that is not installed here

`storage` and `tuners` know nothing of tunery and have errors of their own (`storage.errors`, `tuners.errors`);
`tunery.cli` gives them exit code 2 (bad data, bad configuration) or 6 (a store that does not answer).
Exit code 130: interrupted with Ctrl-C (the run was stopped, or goes on detached: the output says which).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class TuneryError(Exception):
    """Base of all errors meant for users. The message says what, got, known and what to do."""

    exit_code = 1


class InputError(TuneryError):
    """The input is wrong; nothing was contacted and nothing was changed."""

    exit_code = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file. `line` and `column` count from 1; 0 where it stands in none (`--set`)."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class SpecError(InputError):
    """All the mistakes of one spec at once, in the order of the file."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda m: (m.file, m.line, m.column)))
        super().__init__("\n".join(map(str, self.mistakes)))


class ProfileError(InputError):
    """A mistake in the profile file, or a secret it names that cannot be read."""


class NotFoundError(TuneryError):
    """No such run, model, version or trial."""

    exit_code = 3


class ConflictError(TuneryError):
    """Refused, because it would overwrite or contradict what is there."""

    exit_code = 4


class RunError(TuneryError):
    """The run ended badly."""

    exit_code = 5


class UnreachableError(TuneryError):
    """A server or a store does not answer; the message names it."""

    exit_code = 6


class MissingExtraError(TuneryError):
    """A part of tunery that is not installed here; the message names the extra to install."""

    exit_code = 7
