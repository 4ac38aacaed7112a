"""Carries the spool to MLflow, in the background and in order, for as long as that takes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import write_whole
from tunery.cluster.tracking.requests import requests
from tunery.cluster.tracking.spool import ID, RECORDS, Key, Record, read_records

if TYPE_CHECKING:
    from tunery.cluster.tracking.sink import Sink

SHIPPED = "shipped.json"
REFUSED = "refused.jsonl"

_POLL_S = 0.25
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_PASS_S = 10.0
"""That one pass may take, about: within the patience of whoever waits for what it carries."""
_FIRST_REQUESTS, _LEAST_REQUESTS, _MOST_REQUESTS = 100, 10, 300
"""Of a pass. The more it has, the more reports of one trial are one request; a server may become slower within one."""
_RECORDS_A_PASS = 5000


@dataclass
class _Shipped:
    """How far the spool is in MLflow, and as which runs."""

    offset: int = 0
    runs: dict[Key, str] = field(default_factory=dict)
    experiments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _Shipped:
        try:
            stored = json.loads(path.read_bytes())
            runs: dict[Key, str] = {(study, number): run_id for study, number, run_id in stored["runs"]}
            return cls(int(stored["offset"]), runs, dict(stored["experiments"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Not there, or lost with the machine's power: shipping everything again changes nothing in MLflow.
            return cls()

    def write(self, path: Path) -> None:
        runs = [[study, number, run_id] for (study, number), run_id in self.runs.items()]
        stored: dict[str, Any] = {"offset": self.offset, "runs": runs, "experiments": self.experiments}
        write_whole(path, json.dumps(stored).encode())


class Shipper:
    """A thread between one spool and one MLflow. Nothing is dropped: a failed call is made again, after a wait."""

    def __init__(self, spool: Path, uri: str, *, artifacts: Path | None = None) -> None:
        """`artifacts`: where a new experiment's artifacts lie; None leaves that to the server at `uri`."""
        self._spool = spool
        self._uri = uri
        self._artifacts = artifacts
        self._shipped = _Shipped.read(spool / SHIPPED)
        self._sink: Sink | None = None
        self._wake = threading.Event()
        self._stopping = False
        self._allowed = _FIRST_REQUESTS
        self._taken = 0
        """How often something has arrived: a pass may take longer than whoever waits would wait for nothing."""
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tracking-shipper", daemon=True)
        self.problem = ""
        """The last failure, empty while all is well."""
        self.refused = 0
        """Records that MLflow will never take, kept with the reasons in `refused.jsonl`."""

    def start(self) -> None:
        """Returns at once: MLflow is imported, and its database laid out, in the thread."""
        self._thread.start()

    def drain(self, patience_s: float, *, give_up: Callable[[], bool] | None = None) -> bool:
        """Wait until everything appended before this call is in MLflow. False where that is not to be waited for.

        `give_up`: then it may take as long as it takes, as long as some of it arrives every `patience_s` and this does
        not hold. Without it `patience_s` is all the time there is.
        """
        size = self._size()
        with self._progress:
            arrived, deadline = self._taken, time.monotonic() + patience_s
            while self._shipped.offset < size:
                if give_up is not None:
                    if give_up():
                        return False
                    if self._taken > arrived:
                        arrived, deadline = self._taken, time.monotonic() + patience_s
                self._wake.set()  # try now, whatever the present wait is
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                self._progress.wait(min(left_s, _FIRST_WAIT_S))
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread after its present call. What is not shipped stays in the spool for the next shipper."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def run_id(self, study: str, number: int | None) -> str | None:
        """MLflow's id of the run of a trial (or of the study: None), once it is there."""
        return self._shipped.runs.get((study, number))

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._stopping:
            try:
                moved = self._ship_some()
                self.problem, wait_s = "", _FIRST_WAIT_S
                if moved:
                    continue
                pause_s = _POLL_S
            except Exception as error:  # whatever fails: the spool holds it all, and it is tried again
                self.problem = self._told(error)
                pause_s, wait_s = wait_s, min(2 * wait_s, _LONGEST_WAIT_S)
            self._wake.wait(pause_s)
            self._wake.clear()

    def _ship_some(self) -> bool:
        """Ship what is there, up to a bound. Whether there was anything."""
        sink = self._connected()
        offset = start = self._shipped.offset
        if start >= self._size():
            return False
        records, unreadable = [], 0
        asked, together = 0, Counter[Key]()
        for record, end in islice(read_records(self._spool / RECORDS, offset), _RECORDS_A_PASS):
            offset = end
            if record is None:
                unreadable += 1
                continue
            records.append(record)
            asked += requests(record, together)
            if asked >= self._allowed:
                break
        if offset == start:
            return False  # a line that is still being written
        self._sync()
        began = time.monotonic()
        self._keep_refused(sink.apply(records, self._count_taken), unreadable)
        self._allow(asked, time.monotonic() - began)
        with self._progress:
            self._shipped.offset = offset
            self._shipped.write(self._spool / SHIPPED)
            self._progress.notify_all()
        return True

    def _count_taken(self) -> None:
        with self._progress:
            self._taken += 1

    def _allow(self, asked: int, seconds: float) -> None:
        """As many requests next time as the server answers within a pass's time."""
        possible = int(asked * _PASS_S / max(seconds, 1e-3))
        self._allowed = min(max(possible, _LEAST_REQUESTS), _MOST_REQUESTS)

    def _connected(self) -> Sink:
        if self._sink is None:
            # Here and not at the top: it loads MLflow, which takes seconds that only this thread should wait.
            from tunery.cluster.tracking.sink import Sink

            runs, experiments = self._shipped.runs, self._shipped.experiments
            spool_id = (self._spool / ID).read_text()
            self._sink = Sink(self._uri, spool_id, artifacts=self._artifacts, runs=runs, experiments=experiments)
        return self._sink

    def _sync(self) -> None:
        """What MLflow is told must outlive the machine's power here too, or a replay would tell it anew."""
        handle = os.open(self._spool / RECORDS, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _keep_refused(self, refused: Iterable[tuple[Record, str]], unreadable: int) -> None:
        lines = [json.dumps({"why": why, "record": record}) for record, why in refused]
        lines += [json.dumps({"why": "unreadable lines in the spool", "count": unreadable})] if unreadable else []
        if lines:
            with (self._spool / REFUSED).open("a") as file:
                file.write("\n".join(lines) + "\n")
            self.refused += len(lines)

    def _size(self) -> int:
        try:
            return (self._spool / RECORDS).stat().st_size
        except FileNotFoundError:
            return 0

    def _told(self, error: Exception) -> str:
        from storage.mlflow_connection import told, without_password  # for the same reason as above

        return f"{without_password(self._uri)}: {told(error, self._uri)}"
