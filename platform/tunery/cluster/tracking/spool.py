"""The spool: what is to be in MLflow, one JSON document a line, in the order it happened.

    <spool>/records.jsonl      appended by the one Tracker of the run, never rewritten
    <spool>/files/<sha256>     contents given as bytes
    <spool>/id                 names this spool among all that reach one MLflow
    <spool>/shipped.json       how far the shipper came (`shipper.py`)
    <spool>/refused.jsonl      records MLflow will never take, each with the reason

What survives what: a record is written with one `write`, so a process killed at any moment loses no record it had
returned from, and leaves at most one torn line, which the next Tracker cuts off. Nothing is synced here, because the
training loop would wait for the disk; the shipper syncs what it is about to send, so that after a loss of power
MLflow never knows more than the spool, and at most the last second of records is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from storage.files import write_whole
from tunery.runs import Value

Status = Literal["FINISHED", "FAILED", "KILLED"]
Record = Mapping[str, Any]
Key = tuple[str, int | None]
"""A study and the number of its trial; None: the study itself."""

RECORDS = "records.jsonl"
FILES = "files"
ID = "id"


class Tracker:
    """Appends to the spool of one run. Every method is one small append; none waits for MLflow or for the disk.

    May be used from several threads of the run's one driver. Made again on the same folder it goes on where the
    spool ends, and drops what is reported twice: a trial that goes on from a checkpoint repeats the steps after it.
    """

    def __init__(self, spool: Path, *, run: str = "") -> None:
        """`run`: the run's id; by default the name of the folder the spool lies in (see `tunery.runs`)."""
        self._folder = spool
        self._run = run or spool.resolve().parent.name
        self._guard = threading.RLock()
        self._newest_step: dict[tuple[str, int | None, str], int] = {}
        (spool / FILES).mkdir(parents=True, exist_ok=True)
        if not (spool / ID).exists():
            write_whole(spool / ID, uuid.uuid4().hex.encode())
        self._handle = os.open(spool / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._handle, self._recover())

    def study_started(
        self,
        study: str,
        *,
        experiment: str,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        files: Mapping[str, Path | bytes],
        at_ms: int,
    ) -> None:
        """Open the study's parent run, or open it again. `files`: artifact path -> content, or a file that stays."""
        kept = {name: str(self._keep(content)) for name, content in files.items()}
        self._append("study_started", study, None, at_ms, experiment=experiment, name=run_name, tags=dict(tags),
                     params=_texts(params), files=kept)  # fmt: skip

    def trial_started(
        self, study: str, number: int, *, params: Mapping[str, Value], tags: Mapping[str, str], at_ms: int
    ) -> None:
        """Open the trial's run beneath its study's, or open it again."""
        self._append("trial_started", study, number, at_ms, params=_texts(params), tags=dict(tags))

    def metrics(self, study: str, number: int | None, values: Mapping[str, float], *, step: int, at_ms: int) -> None:
        """Metrics of a trial (or of the study: None) at an optimiser step. A key's steps only rise."""
        with self._guard:
            fresh = {k: float(v) for k, v in values.items() if self._newest_step.get((study, number, k), -1) < step}
            if fresh:
                self._append("metrics", study, number, at_ms, values=fresh, step=step)
                self._newest_step |= {(study, number, key): step for key in fresh}

    def trial_ended(
        self, study: str, number: int, *, status: Status, at_ms: int, tags: Mapping[str, str] | None = None
    ) -> None:
        self._append("ended", study, number, at_ms, status=status, tags=dict(tags or {}))

    def study_ended(self, study: str, *, status: Status, at_ms: int, tags: Mapping[str, str] | None = None) -> None:
        self._append("ended", study, None, at_ms, status=status, tags=dict(tags or {}))

    def artifacts(self, study: str, number: int | None, folder: Path, path: str, at_ms: int) -> None:
        """Keep a folder's files under `path` of the run's artifacts. The folder must stay until it is shipped."""
        self._append("artifacts", study, number, at_ms, folder=str(folder.resolve()), path=path)

    def close(self) -> None:
        os.close(self._handle)

    def _append(self, kind: str, study: str, number: int | None, at_ms: int, **fields: object) -> None:
        record = {"kind": kind, "run": self._run, "study": study, "number": number, "at_ms": at_ms, **fields}
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._guard:
            start = os.fstat(self._handle).st_size
            try:
                written = os.write(self._handle, line)
                while written < len(line):  # a disk that fills up cuts a write short before it fails
                    written += os.write(self._handle, line[written:])
            except OSError:
                os.ftruncate(self._handle, start)  # or the next record would be glued to half of this one
                raise

    def _keep(self, content: Path | bytes) -> Path:
        if isinstance(content, Path):
            return content.resolve()
        path = (self._folder / FILES / hashlib.sha256(content).hexdigest()).resolve()
        if not path.exists():
            write_whole(path, content)
        return path

    def _recover(self) -> int:
        """Bytes of whole lines; fills in which steps were reported."""
        whole = 0
        for record, whole in read_records(self._folder / RECORDS, 0):  # noqa: B007  (the last is what is asked for)
            if record is not None and record["kind"] == "metrics":
                where = (record["study"], record["number"])
                self._newest_step |= {(*where, key): record["step"] for key in record["values"]}
        return whole


def read_records(path: Path, offset: int) -> Iterator[tuple[Record | None, int]]:
    """Whole lines from `offset` on, each with the offset behind it; None for a line that is no record."""
    with path.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if not line.endswith(b"\n"):
                return  # being written, or torn by a kill
            offset += len(line)
            yield _parse(line), offset


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
        return (
            record if isinstance(record, dict) and {"kind", "run", "study", "number", "at_ms"} <= set(record) else None
        )
    except ValueError:
        return None


def _texts(params: Mapping[str, Value] | Mapping[str, str]) -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
