"""Runs on a cluster as the tracking server has them (`tunery.mirrored`), read over MLflow's plain HTTP."""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunery import mirrored
from tunery.client._http import Server
from tunery.client._trust import Trust
from tunery.errors import NotFoundError, UnreachableError
from tunery.profile import Profile
from tunery.runs import RunState

POLL_S = 2.0
"""Between two looks at a log that is followed: about as often as it is brought to the server."""
_READS, _READ_WAIT_S = 20, 0.25
"""Of a file that is being replaced: a server that keeps files in a folder shows half of one for a moment."""


@dataclass(frozen=True)
class Entry:
    """What the server knows of one run."""

    run: str
    job: str
    """The job whose state lies there; empty before it has brought one."""
    id: str
    """MLflow's."""
    started_ms: int


class Tracked:
    """The runs that one tracking server has been told of."""

    def __init__(self, server: Server) -> None:
        self.uri = server.url
        self._server = server
        self._experiment: str | None = None

    @classmethod
    def of(cls, profile: Profile, secrets: Mapping[str, str]) -> Tracked:
        """The profile's server; names and passwords are MLflow's own, of the profile or of the environment."""
        found = {**os.environ, **secrets}
        user, password = found.get("MLFLOW_TRACKING_USERNAME"), found.get("MLFLOW_TRACKING_PASSWORD")
        token = found.get("MLFLOW_TRACKING_TOKEN")
        rights = (
            f"profile {profile.name!r} takes MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD from its secrets; "
            f"with 403 that user lacks a right to experiment {mirrored.EXPERIMENT}: READ to look, EDIT to stop a run"
        )
        return cls(
            Server(
                "MLflow",
                profile.tracking_uri,
                rights=rights,
                trust=Trust.of(profile),
                headers={"Authorization": f"Bearer {token}"} if token and not user else None,
                auth=(user, password or "") if user else None,
            )
        )

    def entries(self, run: str | None = None) -> list[Entry]:
        """Of all runs, or of the one; the newest first."""
        experiment = self._experiment or self._find_experiment()
        if experiment is None:
            return []
        where = f"tags.`{mirrored.KIND}` = '{mirrored.SWEEP}'"
        where += f" and tags.`{mirrored.RUN}` = '{run}'" if run is not None else ""
        found: dict[str, Entry] = {}
        body: dict[str, Any] = {"experiment_ids": [experiment], "filter": where, "max_results": 500}
        while True:
            page = self._server.ask_json("POST", "/api/2.0/mlflow/runs/search", "list runs", json=body) or {}
            for each in page.get("runs", []):
                tags = {tag["key"]: tag["value"] for tag in each["data"].get("tags", [])}
                info = each["info"]
                entry = Entry(tags[mirrored.RUN], tags.get(mirrored.JOB, ""), info["run_id"], int(info["start_time"]))
                # Of two that were made because an answer was lost, the elder is the one that is written to.
                known = found.get(entry.run)
                if known is None or (entry.started_ms, entry.id) < (known.started_ms, known.id):
                    found[entry.run] = entry
            if not page.get("next_page_token"):
                return sorted(found.values(), key=lambda entry: -entry.started_ms)
            body["page_token"] = page["next_page_token"]

    def entry(self, run: str) -> Entry | None:
        """None: nothing was told of it yet."""
        return next(iter(self.entries(run)), None)

    def state(self, entry: Entry) -> RunState:
        """As it was last told."""
        problem: ValidationError | None = None
        for attempt in range(_READS):
            if attempt:
                time.sleep(_READ_WAIT_S)
            try:
                return RunState.model_validate_json(self.read(entry, mirrored.STATE))
            except ValidationError as error:
                problem = error
        raise UnreachableError(
            f"MLflow at {self.uri} gives a state of run {entry.run} that cannot be read: {problem}"
        ) from problem

    def read(self, entry: Entry, path: str) -> bytes:
        """An artifact. NotFoundError."""
        answer = self._server.ask("GET", "/get-artifact", params={"run_uuid": entry.id, "path": path})
        if answer.status_code == 404:
            raise NotFoundError(f"MLflow at {self.uri} has no {path} of run {entry.run}")
        if answer.status_code != 200:
            raise self._server.fail(answer, f"give {path} of run {entry.run}")
        return answer.content

    def ask_to_stop(self, entry: Entry) -> None:
        """The job whose state this is; it looks as often as it tells."""
        body = {"run_id": entry.id, "key": mirrored.STOP, "value": entry.job}
        self._server.ask_json("POST", "/api/2.0/mlflow/runs/set-tag", f"ask run {entry.run} to stop", json=body)

    def lines(self, entry: Entry, log: str, goes_on: Callable[[], bool]) -> Iterator[str]:
        """The lines of a log, without their ends, and those that come while `goes_on` holds."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        index = offset = 0
        pending = ""
        while True:
            # Asked before reading: what was written before the end is then read after it.
            more = goes_on()
            sizes = self._sizes(entry, log)
            while (size := sizes.get(index, 0)) > offset:
                content = self._whole(entry, f"{log}/{mirrored.segment(index)}", size)
                pending += decoder.decode(content[offset:])
                *whole, pending = pending.split("\n")
                yield from (line.rstrip("\r") for line in whole)
                offset = len(content)
                if offset >= mirrored.SEGMENT_BYTES:
                    index, offset = index + 1, 0
            if not more:
                break
            time.sleep(POLL_S)
        if pending:
            yield pending

    def _whole(self, entry: Entry, path: str, size: int) -> bytes:
        """A file that has had this size, and only grows: less of it is one that is being replaced."""
        for attempt in range(_READS):
            if attempt:
                time.sleep(_READ_WAIT_S)
            content = self.read(entry, path)
            if len(content) >= size:
                return content
        raise UnreachableError(
            f"MLflow at {self.uri} gives {len(content)} bytes of {path} of run {entry.run}, and lists {size}"
        )

    def has(self, entry: Entry, log: str) -> bool:
        """Whether anything of the log is there."""
        return bool(self._sizes(entry, log))

    def _sizes(self, entry: Entry, log: str) -> dict[int, int]:
        """Bytes of each segment."""
        params = {"run_id": entry.id, "path": log}
        found = self._server.ask_json(
            "GET", "/api/2.0/mlflow/artifacts/list", f"list the segments of {log}", params=params
        )
        files = (found or {}).get("files", [])
        names = {
            file["path"].rpartition("/")[2]: int(file.get("file_size", 0)) for file in files if not file.get("is_dir")
        }
        return {int(name.partition(".")[0]): size for name, size in names.items() if name.partition(".")[0].isdecimal()}

    def _find_experiment(self) -> str | None:
        found = self._server.ask_json(
            "GET",
            "/api/2.0/mlflow/experiments/get-by-name",
            "look up an experiment",
            params={"experiment_name": mirrored.EXPERIMENT},
        )
        self._experiment = found["experiment"]["experiment_id"] if found else None
        return self._experiment


def spec_of(plan: bytes) -> dict[str, object]:
    """The spec in a plan's JSON, whichever version has written it; empty where it holds none."""
    found = json.loads(plan)
    spec = found.get("spec", {}) if isinstance(found, dict) else {}
    return spec if isinstance(spec, dict) else {}
