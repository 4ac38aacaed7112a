"""Tells the tracking server how a run on a cluster stands (`tunery.mirrored`), so that a laptop can follow it.

Works beside the driver and not in it: what is told last of a driver that has died is that it has died. A server that is
away costs nothing but time; what has changed meanwhile is brought when it is back.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from storage.files import write_whole
from tunery import mirrored
from tunery.runs import ENDED, RunFolder, RunStatus

if TYPE_CHECKING:
    from storage.mlflow_connection import MlflowClient

log = logging.getLogger(__name__)

INTERVAL_S = 2.0
"""Between two times that the server is told something."""
SHARE = 0.2
"""Most of the time that goes into telling it, as long as news are no older than `_LONGEST_WAIT_S`: the state holds
every trial."""
_LONGEST_WAIT_S = 30.0
_STATUSES: dict[RunStatus, str] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "stopped": "KILLED",
    "interrupted": "FAILED",
}


class Mirror:
    """Of one run, for one job."""

    def __init__(self, folder: RunFolder, uri: str, *, job: str) -> None:
        self._folder = folder
        self._uri = uri
        self._job = job
        self._client: MlflowClient | None = None
        self._run = ""
        self._told_job = False
        self._state = b""
        self._sent: dict[Path, int] = {}
        """Bytes of each log that are there."""
        self._next = 0.0
        self._wait_s = INTERVAL_S
        self._problem = ""
        self.asked_to_stop = False
        """Somebody has asked for it on the server."""

    def turn(self) -> None:
        """Tell what has changed, if it is time to."""
        began = time.monotonic()
        if began < self._next:
            return
        if self._tried(final=False):
            took_s = time.monotonic() - began
            self._next = time.monotonic() + max(INTERVAL_S, min(took_s / SHARE, _LONGEST_WAIT_S))
            self._wait_s = INTERVAL_S
        else:
            self._next = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def finish(self, limit_s: float) -> str:
        """Tell the rest, the state last: who reads that it has ended finds everything. '' or what stands in the way."""
        deadline = time.monotonic() + limit_s
        while not self._tried(final=True):
            if time.monotonic() > deadline:
                return self._problem
            time.sleep(INTERVAL_S)
        return ""

    def _tried(self, *, final: bool) -> bool:
        try:
            self._bring(final=final)
        except Exception as error:  # whatever fails: all of it is on disk, and it is tried again
            from storage.mlflow_connection import told, without_password

            self._problem = f"{without_password(self._uri)}: {told(error, self._uri)}"
            log.warning("the state is not brought to MLflow: %s", self._problem)
            return False
        self._problem = ""
        return True

    def _bring(self, *, final: bool) -> None:
        client = self._connected()
        state = self._folder.current(name=self._folder.name)
        if not final:  # first: whoever asks counts the time from there
            self.asked_to_stop |= client.get_run(self._run).data.tags.get(mirrored.STOP) == self._job
        # An end is told when everything else is there.
        if not final and state.status not in ENDED and self._folder.state_file.exists():
            self._bring_state(client, state.model_dump_json(indent=1).encode())
        record = self._folder.root / mirrored.RECORD
        for file in (*sorted((self._folder.root / "logs").glob("**/*.log")), *([record] if record.exists() else [])):
            self._bring_log(client, file)
        if final:
            self._bring_state(client, state.model_dump_json(indent=1).encode())
            client.set_terminated(self._run, _STATUSES.get(state.status, "FAILED"))

    def _bring_state(self, client: MlflowClient, state: bytes) -> None:
        if state != self._state:
            self._upload(client, mirrored.STATE, state)
            self._state = state
        if not self._told_job:
            client.set_tag(self._run, mirrored.JOB, self._job)
            self._told_job = True

    def _bring_log(self, client: MlflowClient, file: Path) -> None:
        size, sent = file.stat().st_size, self._sent.get(file, 0)
        folder = file.relative_to(self._folder.root).as_posix()
        while sent < size:
            index = sent // mirrored.SEGMENT_BYTES
            with file.open("rb") as handle:
                handle.seek(index * mirrored.SEGMENT_BYTES)
                content = handle.read(mirrored.SEGMENT_BYTES)
            self._upload(client, f"{folder}/{mirrored.segment(index)}", content)
            sent = self._sent[file] = index * mirrored.SEGMENT_BYTES + len(content)

    def _upload(self, client: MlflowClient, path: str, content: bytes) -> None:
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory() as scratch:
            write_whole(Path(scratch, name), content)
            client.log_artifact(self._run, str(Path(scratch, name)), folder or None)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            # Loads MLflow, for which a run that is to start does not wait.
            from storage.mlflow_connection import connect

            self._client = connect(self._uri)
        if not self._run:
            self._run = self._open(self._client)
        return self._client

    def _open(self, client: MlflowClient) -> str:
        """MLflow's run for this one, found or made."""
        experiment = _experiment(client)
        where = f"tags.`{mirrored.KIND}` = '{mirrored.SWEEP}' and tags.`{mirrored.RUN}` = '{self._folder.run_id}'"
        found = sorted(client.search_runs([experiment], where), key=lambda run: (run.info.start_time, run.info.run_id))
        if found:
            run = str(found[0].info.run_id)
            client.update_run(run, "RUNNING")
        else:
            tags = {mirrored.KIND: mirrored.SWEEP, mirrored.RUN: self._folder.run_id}
            run = str(client.create_run(experiment, tags=tags, run_name=self._folder.run_id).info.run_id)
        self._run = run
        self._upload(client, mirrored.PLAN, self._folder.plan_file.read_bytes())
        return run


def _experiment(client: MlflowClient) -> str:
    from storage.mlflow_connection import MlflowException

    found = client.get_experiment_by_name(mirrored.EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(mirrored.EXPERIMENT))
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":  # another run was quicker
            return _experiment(client)
        raise
