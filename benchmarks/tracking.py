"""What the way to MLflow carries: reports at a steady rate into a spool, and the spool to MLflow.

    python -m benchmarks.tracking                        # into a database file of its own
    python -m benchmarks.tracking --profile team         # into the tracking server of a profile
    python -m benchmarks.tracking --profile here --cpu-of mlflow=PORT --cpu-of postgres=PORT

Real: the spool and its syncs, the thread that carries it, MLflow and its database. Made up: what the trials report.
MLflow holds an experiment more afterwards (`benchmarks/tracking`).

Measured: metrics a second beside what was asked for, what an append costs the driver, how far MLflow is behind while
reports come, and how long it takes for the rest after the last one; requests to a server, and what each takes of the
processors: of the servers that are named, where they are on this machine, and of this process. At the end some trials'
histories are read back and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

from requests.adapters import HTTPAdapter

from benchmarks import servers
from benchmarks.report import machine, progress, save, table
from storage.mlflow_connection import connect
from tunery.cluster.tracking import Shipper, Tracker
from tunery.cluster.tracking.shipper import SHIPPED
from tunery.cluster.tracking.spool import RECORDS
from tunery.home import Home
from tunery.profile import load_profile

STUDY = "study"
EXPERIMENT = "benchmarks/tracking"
METRICS = ("mcc", "accuracy", "loss", "train_loss", "examples_per_s", "tokens_per_s", "peak_memory_bytes",
           "trainable_parameters", "total_parameters", "epoch")  # fmt: skip
"""As many as a pack reports."""
_READ_BACK = 5
_DRAIN_S = 600.0


@dataclass(frozen=True)
class Size:
    """What is reported."""

    rate: float = 1000.0
    """Metrics a second."""
    seconds: float = 60.0
    trials: int = 200


@dataclass
class Requests:
    """To servers, in two parts: while runs are created, and while metrics come; and CPU seconds meanwhile."""

    watched: servers.Servers = field(default_factory=lambda: servers.Servers({}))
    sent: int = 0
    parts: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def counted(self) -> Iterator[None]:
        send = HTTPAdapter.send

        def counting(*arguments: Any, **options: Any) -> Any:
            self.sent += 1
            return send(*arguments, **options)

        with patch.object(HTTPAdapter, "send", counting):
            yield

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        sent, own, theirs = self.sent, time.process_time(), self.watched.cpu()
        yield
        took = {"this process": time.process_time() - own, **servers.since(theirs, self.watched.cpu())}
        self.parts[name] = {"requests": self.sent - sent, **took}


def measured(
    size: Size, folder: Path, uri: str, artifacts: Path | None, watched: servers.Servers | None = None
) -> dict[str, Any]:
    """Raises AssertionError where MLflow does not hold what was reported."""
    requests = Requests(watched or servers.Servers({}))
    with requests.counted():
        return {**_measured(size, folder, uri, artifacts, requests), "parts": requests.parts}


def _measured(size: Size, folder: Path, uri: str, artifacts: Path | None, requests: Requests) -> dict[str, Any]:
    spool = folder / "spool"
    tracker = Tracker(spool, run=f"tracking-{uuid.uuid4().hex[:8]}")
    shipper = Shipper(spool, uri, artifacts=artifacts)
    tracker.study_started(
        STUDY, experiment=EXPERIMENT, run_name="tracking", tags={}, params={}, files={}, at_ms=_now_ms()
    )
    for trial in range(size.trials):
        tracker.trial_started(STUDY, trial, params={"rate": size.rate}, tags={}, at_ms=_now_ms())
    shipper.start()
    progress(f"{size.trials} runs are created")
    began = time.monotonic()
    with requests.part("runs created"):
        _drain(shipper)
    created_s = time.monotonic() - began
    progress(f"{size.rate:g} metrics/s for {size.seconds:g} s")
    with requests.part("metrics"):
        reports, found = _reported(size, tracker, shipper, spool)
    _read_back(shipper, uri, size, reports)
    shipper.close()
    tracker.close()
    return {"created_s": created_s, **found}


def _reported(size: Size, tracker: Tracker, shipper: Shipper, spool: Path) -> tuple[int, dict[str, float]]:
    """How many reports there were, and how they went."""
    appended: list[tuple[int, float]] = []
    appends_s: list[float] = []
    behind_s: list[float] = []
    reports, pause_s, looked = 0, len(METRICS) / size.rate, 0.0
    began = time.monotonic()
    while (now := time.monotonic()) - began < size.seconds:
        due = began + reports * pause_s
        if now < due:
            time.sleep(due - now)  # reports come at a rate of their own
        trial, step = reports % size.trials, reports // size.trials
        at = time.monotonic()
        tracker.metrics(STUDY, trial, dict.fromkeys(METRICS, 1.0 / (1 + step)), step=step, at_ms=_now_ms())
        appends_s.append(time.monotonic() - at)
        reports += 1
        appended.append(((spool / RECORDS).stat().st_size, time.monotonic()))
        if now - looked > 1.0:
            looked = now
            offset = json.loads((spool / SHIPPED).read_bytes())["offset"]
            behind_s.append(next((now - then for size_then, then in appended if size_then > offset), 0.0))
    took_s = time.monotonic() - began
    _drain(shipper)
    rest_s = time.monotonic() - began - took_s
    return reports, {
        "asked_per_s": size.rate,
        "reported_per_s": reports * len(METRICS) / took_s,
        "arrived_per_s": reports * len(METRICS) / (took_s + rest_s),
        "append_us": 1e6 * statistics.median(appends_s),
        "append_most_us": 1e6 * max(appends_s),
        "behind_s": statistics.median(behind_s),
        **{f"behind_third_{part}_s": third for part, third in enumerate(_thirds(behind_s), start=1)},
        "behind_most_s": max(behind_s),
        "rest_s": rest_s,
    }


def _thirds(values: Sequence[float]) -> list[float]:
    """The median of each third: whether something grows. Fewer than three values stand in several."""
    count = len(values)
    bounds = [(count * part // 3, count * (part + 1) // 3) for part in range(3)]
    return [statistics.median(values[low : max(high, low + 1)]) for low, high in bounds]


def _drain(shipper: Shipper) -> None:
    assert shipper.drain(_DRAIN_S), f"MLflow has not taken all within {_DRAIN_S:g} s: {shipper.problem}"


def _read_back(shipper: Shipper, uri: str, size: Size, reports: int) -> None:
    client = connect(uri)
    for trial in range(0, size.trials, max(1, size.trials // _READ_BACK)):
        run_id = shipper.run_id(STUDY, trial)
        assert run_id is not None, trial
        wanted = list(range((reports - trial + size.trials - 1) // size.trials))
        for name in (METRICS[0], METRICS[-1]):
            steps = [metric.step for metric in client.get_metric_history(run_id, name)]
            assert sorted(steps) == wanted, f"trial {trial}, {name}: {len(steps)} of {len(wanted)} are there"


def _now_ms() -> int:
    return int(time.time() * 1000)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for each in fields(Size):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    parser.add_argument("--profile", help="whose tracking server; left out, a database file that is removed again")
    servers.add_option(parser)
    parser.add_argument("--name", default="tracking", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    size = Size(options.rate, options.seconds, options.trials)
    where = machine()
    with tempfile.TemporaryDirectory(prefix="tracking-") as name:
        folder = Path(name)
        if options.profile:
            profile = load_profile(options.profile, Home.from_environment())
            os.environ.update(profile.environment())
            found = measured(size, folder, profile.tracking_uri, None, servers.given(options.cpu_of))
        else:
            found = measured(size, folder, f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
    print(told(size, found))
    print(f"written: {save(options.name, {'machine': where, 'size': asdict(size), **found})}")


def told(size: Size, found: dict[str, Any]) -> str:
    rows = [
        [f"{size.trials} runs created, s", f"{found['created_s']:.1f}"],
        ["metrics a second: asked for", f"{found['asked_per_s']:.0f}"],
        ["reported", f"{found['reported_per_s']:.0f}"],
        ["arrived, the rest included", f"{found['arrived_per_s']:.0f}"],
        ["a report's append, us: median", f"{found['append_us']:.0f}"],
        ["most", f"{found['append_most_us']:.0f}"],
        ["MLflow behind, s: median", f"{found['behind_s']:.1f}"],
        ["of each third of the time", ", ".join(f"{found[f'behind_third_{part}_s']:.1f}" for part in (1, 2, 3))],
        ["most", f"{found['behind_most_s']:.1f}"],
        ["the rest after the last report, s", f"{found['rest_s']:.1f}"],
    ]
    return "\n".join([table(["what", "measured"], rows), *(_part(name, part) for name, part in found["parts"].items())])


def _part(name: str, part: dict[str, float]) -> str:
    requests = part["requests"]
    cpu = ", ".join(f"{whose} {s:.1f} s" for whose, s in part.items() if whose != "requests")
    each = f", {1000 * (sum(part.values()) - requests) / requests:.0f} ms a request" if requests else ""
    return f"{name}: {requests:.0f} requests; CPU: {cpu}{each}"


if __name__ == "__main__":
    main()
