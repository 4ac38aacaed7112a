"""Records into MLflow. Every record may be applied any number of times, in order, and has its effect once.

A run carries the tags `tunery.spool`, `tunery.kind`, `tunery.study` and `tunery.trial` from its creation on, and is
looked for by them before it is created. Metrics carry the time and step of the record, which is MLflow's own key of
a metric's row. Params, tags, statuses and artifacts are the same however often they are set.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from storage.mlflow_connection import Metric, MlflowException, Param, RunTag, connect
from tunery.cluster.tracking.requests import METRICS_A_REQUEST, PARAMS_A_REQUEST
from tunery.cluster.tracking.spool import Key, Record

_Item = TypeVar("_Item")
# Not among them: missing rights, which an administrator may grant while the spool waits.
_NEVER = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST"})


class Refused(Exception):  # noqa: N818  (it is the record that is refused; nothing here has failed)
    """MLflow will never take this record; the message says why."""


class Sink:
    """One MLflow, for the records of one spool."""

    def __init__(
        self, uri: str, spool_id: str, *, artifacts: Path | None, runs: dict[Key, str], experiments: dict[str, str]
    ) -> None:
        """`artifacts`: where the artifacts of a new experiment lie; None leaves that to the server (and with a sqlite
        file, which has none, they lie beside it).

        `runs` and `experiments` (by study) are what is known already; both are filled in.
        """
        self._client = connect(uri)
        self._spool_id = spool_id
        self._artifacts = artifacts or _beside(uri)
        self.runs = runs
        self.experiments = experiments

    def apply(self, records: Sequence[Record], taken: Callable[[], None]) -> list[tuple[Record, str]]:
        """Bring the records over; returns those refused, with the reasons. Raises what may succeed later.

        `taken` is called as often as something has arrived.
        """
        refused: list[tuple[Record, str]] = []
        waiting: dict[Key, list[Record]] = {}
        for record in records:
            key: Key = (record["study"], record["number"])
            if record["kind"] == "metrics":
                waiting.setdefault(key, []).append(record)
                continue
            refused += self._metrics(key, waiting.pop(key, []))
            try:
                self._apply_one(record)
            except Refused as reason:
                refused.append((record, str(reason)))
            taken()
        for key, metrics in waiting.items():
            refused += self._metrics(key, metrics)
            taken()
        return refused

    def _apply_one(self, record: Record) -> None:
        match record["kind"]:
            case "study_started":
                self._study_started(record)
            case "trial_started":
                self._trial_started(record)
            case "ended":
                self._ended(record)
            case "artifacts":
                self._upload(self._run(record), Path(record["folder"]), record["path"])
            case unknown:
                raise Refused(f"a record of the unknown kind {unknown!r}")

    def _study_started(self, record: Record) -> None:
        study = record["study"]
        self.experiments[study] = self._experiment(record["experiment"])
        run_id = self._open(record, record["name"], {"tunery.kind": "study"})
        with tempfile.TemporaryDirectory() as scratch:
            for name, source in record["files"].items():
                target = Path(scratch, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(source, target)
                except FileNotFoundError:
                    raise Refused(f"{source} is gone") from None
            if record["files"]:
                self._upload(run_id, Path(scratch), None)

    def _trial_started(self, record: Record) -> None:
        study, number = record["study"], str(record["number"])
        parent = self.runs.get((study, None))
        if parent is None:
            raise Refused(f"study {study!r} was never started")
        own = {"tunery.kind": "trial", "tunery.trial": number, "mlflow.parentRunId": parent}
        self._open(record, f"{record['run']}/{study}/{number}", own)

    def _ended(self, record: Record) -> None:
        run_id = self._run(record)
        self._batches(run_id, tags=_tags(record["tags"]))
        _refusable(self._client.set_terminated, run_id, record["status"], record["at_ms"])
        if record["number"] is None:
            self._remove_twins(record["study"])

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self._artifacts is not None:
            location = (self._artifacts / re.sub(r"[^\w.-]", "_", name)).resolve().as_uri()
        try:
            return self._client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code == "RESOURCE_ALREADY_EXISTS":  # another run was quicker
                return self._experiment(name)
            raise

    def _open(self, record: Record, name: str, own: Mapping[str, str]) -> str:
        """The run of the record, created or set running again."""
        study = record["study"]
        key: Key = (study, record["number"])
        own = {"tunery.spool": self._spool_id, "tunery.run": record["run"], "tunery.study": study, **own}
        run_id = self.runs.get(key) or self._find(key)
        if run_id is None:
            run_id = self._client.create_run(
                self.experiments[study], start_time=record["at_ms"], tags=own, run_name=name
            ).info.run_id
        else:
            _refusable(self._client.update_run, run_id, "RUNNING")
        self.runs[key] = run_id
        params = [Param(_clean(name), value) for name, value in record["params"].items()]
        self._batches(run_id, params=params, tags=_tags(record["tags"]))
        return run_id

    def _find(self, key: Key) -> str | None:
        """The run created for this key before, by a call whose answer was lost. The eldest, if there are twins."""
        found = sorted((started, run_id) for run_id, its_key, started in self._of_spool(key[0], key) if its_key == key)
        return found[0][1] if found else None

    def _of_spool(self, study: str, key: Key | None = None) -> Iterator[tuple[str, Key, int]]:
        """All runs of the study from this spool: run id, key, start."""
        where = f"tags.`tunery.spool` = '{self._spool_id}' and tags.`tunery.study` = '{_plain(study)}'"
        if key is not None:
            where += " and tags.`tunery.kind` = 'study'" if key[1] is None else f" and tags.`tunery.trial` = '{key[1]}'"
        token: str | None = None
        while True:
            page = self._client.search_runs([self.experiments[study]], where, max_results=500, page_token=token)
            for run in page:
                number = run.data.tags.get("tunery.trial")
                yield run.info.run_id, (study, None if number is None else int(number)), run.info.start_time
            token = page.token
            if not token:
                return

    def _remove_twins(self, study: str) -> None:
        """A creation whose answer came too late has made a run that nothing was written to."""
        for run_id, key, _ in list(self._of_spool(study)):
            if self.runs.get(key, run_id) != run_id:
                self._client.delete_run(run_id)

    def _metrics(self, key: Key, records: Sequence[Record]) -> Iterable[tuple[Record, str]]:
        """Log the metrics together; singly where that is refused, so that one bad record costs only itself."""
        if not records:
            return []
        try:
            run_id = self._run(records[0])
            self._batches(run_id, metrics=[metric for record in records for metric in _metrics_of(record)])
            return []
        except Refused as reason:
            if len(records) == 1:
                return [(records[0], str(reason))]
            return [pair for record in records for pair in self._metrics(key, [record])]

    def _run(self, record: Record) -> str:
        run_id = self.runs.get((record["study"], record["number"]))
        if run_id is None:
            raise Refused("its trial or study was never started")
        return run_id

    def _batches(
        self, run_id: str, *, metrics: Iterable[Metric] = (), params: Iterable[Param] = (), tags: Iterable[RunTag] = ()
    ) -> None:
        calls = zip_longest(
            _chunks(metrics, METRICS_A_REQUEST),
            _chunks(params, PARAMS_A_REQUEST),
            _chunks(tags, PARAMS_A_REQUEST),
            fillvalue=(),
        )
        for some_metrics, some_params, some_tags in calls:
            _refusable(self._client.log_batch, run_id, some_metrics, some_params, some_tags)

    def _upload(self, run_id: str, folder: Path, path: str | None) -> None:
        if not folder.is_dir():
            raise Refused(f"the folder {folder} is gone")
        _refusable(self._client.log_artifacts, run_id, str(folder), path)


def _beside(uri: str) -> Path | None:
    # MLflow's own default is the folder `mlruns` of whatever directory the process happens to be in.
    return Path(uri.removeprefix("sqlite:///")).parent / "artifacts" if uri.startswith("sqlite:///") else None


def _refusable(call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except MlflowException as error:
        # What a proxy answers in MLflow's place ("API request to ... failed") says nothing about the record.
        if error.error_code in _NEVER and not str(error).startswith("API request to"):
            raise Refused(str(error)) from error
        raise


def _metrics_of(record: Record) -> list[Metric]:
    return [Metric(_clean(k), v, record["at_ms"], record["step"]) for k, v in record["values"].items()]


def _tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(_clean(key), value) for key, value in tags.items()]


def _clean(key: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w\-./ :]", "_", key)


def _plain(text: str) -> str:
    assert "'" not in text, f"study names are made by plan.py and hold no quotes: {text!r}"
    return text


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
