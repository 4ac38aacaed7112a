"""What a cluster runs of a plan that was sent to it: `python -m tunery.cluster.job`, as a job of Ray's.

Checks who has sent it, writes the run's folder in the cluster's TUNERY_HOME, starts the run's driver on the cluster
that runs the job, and tells the tracking server how it stands until it has ended. What the driver logs is printed too,
for the job's own log.

Exit codes: 0 finished, 5 failed, 130 stopped; of an error before there is a run, the error's own (`tunery.errors`),
with a line that begins with `error: `.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from storage.errors import StorageError
from tunery import __version__
from tunery.client._jobs import ERROR
from tunery.client.local import DRIVER, LocalClient
from tunery.cluster.mirror import Mirror
from tunery.errors import InputError, ProfileError, TuneryError
from tunery.home import Home
from tunery.parcel import Parcel, check_version
from tunery.plan import Plan
from tunery.profile import Profile, load_profile
from tunery.report.result import exit_code
from tunery.runs import RunFolder

log = logging.getLogger(__name__)

CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable in which Ray gives a job its metadata."""
ADDRESS = "RAY_ADDRESS"
"""That of the cluster that runs the job."""
_JOB = "job_submission_id"
LOOK_S = 0.5
"""Between two looks at the run."""
LAST_NEWS_S = 60.0
"""What the end of a run waits for a tracking server that is away."""


class Job:
    """One job, from what Ray has given it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        try:
            metadata: dict[str, str] = json.loads(environment[CONFIG])["metadata"]
            self._ray = environment[ADDRESS]
            self._id = metadata[_JOB]
        except KeyError as error:
            raise InputError(f"this runs as a job of Ray's, which sets {error}; `platform submit` sends one") from None
        self._parcel = Parcel.of(metadata)
        self._stop = 0
        """The signal that has asked it to stop."""
        self._printed = 0

    def run(self) -> int:
        """Drive the run to its end; the exit code."""
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self.ask_to_stop)
        # Before the plan is read: another version may have written it in another form.
        check_version(self._parcel.version, here=__version__)
        home = Home.from_environment()
        profile = load_profile(None, home)
        _check(profile)
        # Secrets reach MLflow, Optuna's database and the store from here on, through the environment alone.
        os.environ.update(profile.environment())
        client = LocalClient(home, driver_command=(*DRIVER, "--ray", self._ray), profile=profile.name)
        before = RunFolder(home.runs / self._parcel.run).driver_log
        self._printed = before.stat().st_size if before.exists() else 0
        handle = client.take(self._plan(), offline=self._parcel.offline, also_ended=self._parcel.resume)
        folder = client.folder(handle.run_id)
        log.info("run %s, %s, in %s", handle.run_id, handle.outcome, folder.root)
        mirror = Mirror(folder, profile.tracking_uri, job=self._id)
        while folder.driven():
            if (self._stop or mirror.asked_to_stop) and not folder.stop_file.exists():
                log.warning("asked to stop by %s", f"signal {self._stop}" if self._stop else "a tag in MLflow")
                folder.stop_file.touch()
            self._print(folder.driver_log)
            mirror.turn()
            time.sleep(LOOK_S)
        self._print(folder.driver_log)
        if problem := mirror.finish(LAST_NEWS_S):
            log.error("the run's last state is not in MLflow: %s", problem)
        status = folder.current(name=folder.name).status
        log.info("run %s: %s", handle.run_id, status)
        return exit_code(status)

    def ask_to_stop(self, signum: int, _: FrameType | None) -> None:
        """Signal handler: Ray's way to say that the job is to end."""
        # Only noted: the job may be printing just now, which a handler must not do too.
        self._stop = signum

    def _plan(self) -> Plan:
        try:
            return Plan.model_validate_json(self._parcel.plan)
        except ValidationError as error:
            raise InputError(f"the plan of run {self._parcel.run} cannot be read: {error}") from error

    def _print(self, file: Path) -> None:
        """What the driver has logged since."""
        if not file.exists():
            return
        with file.open("rb") as handle:
            handle.seek(self._printed)
            news = handle.read()
        self._printed += len(news)
        sys.stdout.buffer.write(news)
        sys.stdout.buffer.flush()


def _check(profile: Profile) -> None:
    """ProfileError where the cluster's own profile is none that a run can be followed with."""
    if profile.target != "local":
        raise ProfileError(
            f"the cluster's own profile, {profile.name!r}, has target {profile.target!r}: expected 'local', "
            "for on the cluster a run starts where it is"
        )
    if not profile.tracking_uri.startswith(("http://", "https://")):
        raise ProfileError(
            f"the cluster's own profile, {profile.name!r}, has no tracking server: expected the cluster's address "
            'of the one that the sender names (tracking_uri = "http://...")'
        )


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    try:
        return Job(environment).run()
    except (TuneryError, StorageError) as error:
        problem = str(error)
        code = error.exit_code if isinstance(error, TuneryError) else InputError.exit_code
    except Exception as error:
        log.exception("a fault of tunery")
        problem, code = f"a fault of tunery: {type(error).__name__}: {error}", TuneryError.exit_code
    # One line, and the last one: the client looks for it among the last words of the job.
    print(f"{ERROR}{' | '.join(problem.splitlines())}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
