"""What a request costs MLflow's server: those that the shipper sends for a trial, one after another.

    MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... \\
      python -m benchmarks.mlflow_requests --url http://127.0.0.1:PORT --cpu-of mlflow=PORT --cpu-of postgres=PORT

Sent as the shipper sends them (`tunery.cluster.tracking.sink`), but without MLflow's client, so that next to nothing is
spent here: a run is looked for and created, gets 60 parameters and 3 tags, reports of 10 metrics, and an end. The
experiment that it makes is deleted at the end.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks import servers
from benchmarks.report import machine, progress, save, table

API = "/api/2.0/mlflow/"
METRICS, PARAMS = 10, 60


class Client:
    """A connection a request: a server closes one that was silent for some seconds."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        login = ":".join(os.environ.get(name, "") for name in names).encode()
        self._headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
        }

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Raises AssertionError where the server refuses."""
        self._connection.request("POST", API + path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        self._connection.close()
        assert answer.status == 200, f"{path}: HTTP {answer.status}: {content[:300]!r}"
        return json.loads(content)


def measured(client: Client, watched: servers.Servers, *, trials: int, reports: int) -> dict[str, dict[str, float]]:
    """By request: how many, seconds, CPU seconds of each server."""
    found: dict[str, dict[str, float]] = {}
    experiment = client.post("experiments/create", {"name": f"benchmarks/requests-{uuid.uuid4().hex[:8]}"})[
        "experiment_id"
    ]

    def timed(name: str, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        began, before = time.monotonic(), watched.cpu()
        answers = [client.post(path, body) for body in bodies]
        cpu = servers.since(before, watched.cpu())
        found[name] = {"requests": len(bodies), "wall_s": time.monotonic() - began, **cpu}
        progress(f"{name}: {found[name]}")
        return answers

    spool = uuid.uuid4().hex
    where = f"tags.`tunery.spool` = '{spool}' and tags.`tunery.trial` = "
    timed(
        "looked for",
        "runs/search",
        [{"experiment_ids": [experiment], "filter": f"{where}'{n}'"} for n in range(trials)],
    )
    tags = [{"key": "tunery.spool", "value": spool}]
    created = timed(
        "created",
        "runs/create",
        [
            {"experiment_id": experiment, "start_time": _now_ms(), "run_name": f"trial {n}",
             "tags": [*tags, {"key": "tunery.trial", "value": str(n)}]}
            for n in range(trials)
        ],
    )  # fmt: skip
    ids = [each["run"]["info"]["run_id"] for each in created]
    params = [{"key": f"train.parameter_{n}", "value": str(n)} for n in range(PARAMS)]
    timed("parameters", "runs/log-batch", [{"run_id": run, "params": params, "tags": tags} for run in ids])
    timed(
        "a report's metrics",
        "runs/log-batch",
        [{"run_id": run, "metrics": _metrics(step)} for step in range(reports) for run in ids],
    )
    timed("tags of its end", "runs/log-batch", [{"run_id": run, "tags": tags} for run in ids])
    ends = {"status": "FINISHED", "end_time": _now_ms()}
    timed("ended", "runs/update", [{"run_id": run, **ends} for run in ids])
    client.post("experiments/delete", {"experiment_id": experiment})
    return found


def _metrics(step: int) -> list[dict[str, Any]]:
    return [
        {"key": f"metric_{n}", "value": 1 / (1 + step), "timestamp": _now_ms(), "step": step} for n in range(METRICS)
    ]


def _now_ms() -> int:
    return int(time.time() * 1000)


def told(found: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(found.values())))[2:]
    rows = [
        [what, f"{each['requests']:.0f}", *(f"{1000 * each[key] / each['requests']:.1f}" for key in ("wall_s", *names))]
        for what, each in found.items()
    ]
    return table(["request", "sent", "ms", *(f"CPU ms of {name}" for name in names)], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--url", required=True, help="MLflow's server")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--reports", type=int, default=3, help="of a trial")
    servers.add_option(parser)
    parser.add_argument("--name", default="mlflow_requests", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    where = machine()
    found = measured(Client(options.url), servers.given(options.cpu_of), trials=options.trials, reports=options.reports)
    print(told(found))
    print(f"written: {save(options.name, {'machine': where, 'found': found})}")


if __name__ == "__main__":
    main()
