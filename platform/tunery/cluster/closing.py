"""The end of a run: its report, in its folder and in MLflow."""

from __future__ import annotations

import logging

from tunery.cluster.recorder import Recorder
from tunery.errors import NotFoundError
from tunery.plan import Plan
from tunery.runs import RunFolder, RunState

log = logging.getLogger(__name__)


def write_report(folder: RunFolder, state: RunState, plan: Plan, recorder: Recorder) -> str:
    """Write it, if any trial has a result, and hand it to MLflow. Returns what went wrong: no run fails by it."""
    try:
        from tunery.report import documents  # loads matplotlib, which nothing before this should wait for

        report = documents.of_run(folder, state, plan)
        documents.write(report, folder.report)
        for study in report.studies:
            recorder.report(study, folder.report)
    except NotFoundError as nothing:
        log.info("no report: %s", nothing)
    except Exception as error:
        log.exception("the report was not written")
        return f"the report was not written: {type(error).__name__}: {error}"
    return ""
