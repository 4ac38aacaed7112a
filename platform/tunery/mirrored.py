"""Where in MLflow a run on a cluster is told of: the one server that the cluster and a laptop share.

    experiment `tunery-runs`, one MLflow run for each of ours, beside those of its studies and trials
        tags       tunery.kind = sweep, tunery.run = its id, tunery.job = the job whose state lies there,
                   tunery.stop = the job that is asked to stop, where nothing else reaches it
        artifacts  plan.json
                   state.json                          replaced while it changes
                   logs/driver.log/00000.log, 00001.log ...            a log in segments
                   logs/<study>/<number>.log/00000.log ...
                   spool/records.jsonl/00000.log ...   every evaluation, for the report

A log, and the record of evaluations, is brought in segments.

Only the last segment of a log is ever written again, so that a long log costs no more than a short one.
No heavy import: the client reads with it, and the job writes.
"""

from __future__ import annotations

EXPERIMENT = "tunery-runs"
KIND, SWEEP = "tunery.kind", "sweep"
RUN = "tunery.run"
JOB = "tunery.job"
STOP = "tunery.stop"
PLAN = "plan.json"
STATE = "state.json"
DRIVER_LOG = "logs/driver.log"
RECORD = "spool/records.jsonl"
"""Of a run's folder too."""
SEGMENT_BYTES = 256 * 1024


def trial_log(study: str, number: int) -> str:
    """The folder of a trial's log among the artifacts."""
    return f"logs/{study}/{number}.log"


def segment(index: int) -> str:
    """The name of a log's part, from 0."""
    return f"{index:05}.log"
