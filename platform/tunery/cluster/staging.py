"""Where the large files of a checkpoint are made before they are kept."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import StorageError


@contextmanager
def staged(log: Path) -> Iterator[Path]:
    """A folder beside a trial's log, gone at the end. StorageError where it cannot be made.

    Files, since with every weight trained a copy in memory would be several times the base; and not among the system's
    own temporary ones, which may be kept in memory.
    """
    begins = f".{log.stem}-"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        for leftover in log.parent.glob(f"{begins}*"):  # of a pack that was killed: a trial is in one pack at a time
            shutil.rmtree(leftover, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(prefix=begins, dir=log.parent)
    except OSError as error:
        raise StorageError(
            f"no folder for a checkpoint can be made in {log.parent}: {error.strerror or error}; "
            "the last good one is kept"
        ) from error
    with folder as name:
        yield Path(name)
