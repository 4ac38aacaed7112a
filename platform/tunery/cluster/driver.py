"""The driver of one run: `python -m tunery.cluster.driver RUN_FOLDER [--profile NAME] [--offline] [--ray ADDRESS]`.

Starts Ray, the desk, the packs and the studies; follows the desk's events into the run's state and the tracker; ends
each study with its best adapter in the registry. Started again on the same folder it goes on where the run was.

Exit codes: 0 every study finished, 5 at least one failed, 130 stopped on request.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from storage.errors import StorageError
from storage.fetching import Wanted
from storage.fetching.fetch import Progress
from tuners.errors import TunerError
from tunery.cluster import draws
from tunery.cluster.closing import write_report
from tunery.cluster.gauges import Gauges
from tunery.cluster.hosting import Hosting
from tunery.cluster.jobs import done, prepare_study, start_study
from tunery.cluster.ledger import Ledger
from tunery.cluster.messages import Known, StudyData
from tunery.cluster.orders import Prepared, StudyOrder
from tunery.cluster.recorder import Recorder, known_reports
from tunery.cluster.remote_desk import RemoteDesk
from tunery.cluster.start import base_key, pack_orders, started_ray
from tunery.cluster.stored import settle
from tunery.errors import TuneryError
from tunery.fetching import pinned
from tunery.home import Home
from tunery.plan import Plan, Study
from tunery.profile import Profile, load_profile
from tunery.runs import RunFolder, RunStatus

log = logging.getLogger(__name__)

EXIT_FAILED = 5
EXIT_STOPPED = 130
PREPARATIONS = 2
"""Studies tokenised at once: each takes a process of its own with a tokenizer in it, and one that will search."""
ENDED = frozenset({"finished", "failed"})
"""Of the studies that need no packs."""
STATE_INTERVAL_S = 0.3
STATE_SHARE = 0.05
"""Most of the driver's time that goes into writing the state: it holds every trial."""


class StoppedError(Exception):
    """The run was asked to stop while it fetched."""


@dataclass
class Driver:
    """One run from start to end."""

    folder: RunFolder
    plan: Plan
    home: Home
    profile: Profile
    ledger: Ledger
    recorder: Recorder
    _waiting: list[Study] = field(default_factory=list)
    _preparing: dict[ray.ObjectRef[Any], Study] = field(default_factory=dict)
    _studying: dict[ray.ObjectRef[Any], Study] = field(default_factory=dict)
    _data: dict[str, StudyData] = field(default_factory=dict)
    _cursor: int = 0
    _stop: bool = False
    _gauges: Gauges | None = None
    """From Ray's start on, which takes them as long as it is there."""
    _next_state: float = 0.0
    """When the state is to be written again (time.monotonic)."""

    def run(self) -> int:
        """Drive to the end; the exit code."""
        if not self._left():
            return self._conclude()  # what is left is to tell of it
        if self.profile.store is not None:
            self._phase(f"looking at the store {self.profile.store}")
        settle(self.folder, self.plan, self.profile)
        self._phase("starting Ray")
        draws.create_ledger(self.profile.study_storage_url)
        with started_ray(self.profile, namespace=self.plan.run_id):
            self._gauges = Gauges(self.plan.run_id)
            self.desk = RemoteDesk()
            self.packs = Hosting(self.desk)
            if not self._fetch_models():
                return self._go_home()
            self._waiting = self._left()
            if self._waiting:
                left = {study.name for study in self._waiting}
                self.packs.start(pack_orders(self.plan.only(left), self.folder, self.desk, self.profile), self.folder)
            self._phase("reading and tokenising the data")
            while (self._waiting or self._preparing or self._studying) and not self._asked_to_stop():
                self._turn()
            if self._stop:
                return self._go_home()
            self.packs.send_home()
        return self._conclude()

    def _fetch_models(self) -> bool:
        """The hub's models, before anything waits for them; False if the run was asked to stop meanwhile."""

        def progress(model: Wanted) -> Progress:
            self._phase(f"fetching {model.name}")

            def report(*_: int) -> None:
                if self._asked_to_stop():
                    raise StoppedError

            return report

        try:
            self.plan, failed = pinned(self.plan, self.folder.models_file, progress)
        except StoppedError:
            return False
        for study in self.plan.studies:
            if study.name in failed:
                self._fail_study(study, failed[study.name])
        return not self._asked_to_stop()

    # -- one turn ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        while self._waiting and len(self._preparing) < PREPARATIONS:
            study = self._waiting.pop(0)
            preparing = prepare_study.remote(study, self.home.cache)
            self._preparing[preparing] = study
            self._studying[start_study(self._study_order(study, Prepared(preparing)))] = study
        self._follow(wait_s=0.5)
        ended = done(self._studying)
        self._take_prepared()  # a study that has ended had its data
        for ref in ended:
            if ref in self._studying:  # not where its data cannot be used: then it has failed already
                self._finish_study(self._studying.pop(ref), ref)
        self.packs.look_after({base_key(study) for study in (*self._waiting, *self._studying.values())})
        self._write_state()

    def _follow(self, *, wait_s: float) -> None:
        """Take in what happened at the desk."""
        news = self.desk.events(self._cursor, wait_s=wait_s)
        self._cursor = news.upto
        # A study's process has its data as soon as it is there: its trials may be seated before this was told of it.
        self._take_prepared()
        for pack, event in news.events:
            if isinstance(event, Known):
                self._recall(event)
            else:
                self.ledger.apply(pack, event)
                self.recorder.record(event)

    def _take_prepared(self) -> None:
        for ref in done(self._preparing):
            self._study_prepared(self._preparing.pop(ref), ref)

    def _recall(self, known: Known) -> None:
        name = known.name
        if self.ledger.ended(name.study, name.number):
            return
        reports = known_reports(self.folder, name)
        self.ledger.know(known, reports)
        self.recorder.recall(known, reports)

    def _study_order(self, study: Study, data: Prepared) -> StudyOrder:
        return StudyOrder(
            study=study,
            base=base_key(study),
            data=data,
            ledger_url=self.profile.study_storage_url,
            ledger_name=f"{self.plan.run_id}/{study.name}",
            seats=self.packs.places(base_key(study)),
            tracking_uri=self.profile.tracking_uri,
            storage_path=self.folder.root / "tune",
            desk=self.desk,
        )

    def _study_prepared(self, study: Study, ref: ray.ObjectRef[Any]) -> None:
        searching = next((other for other, each in self._studying.items() if each is study), None)
        if searching is None:
            return  # its process failed while the data was prepared: it has failed, and stays so
        try:
            data = self._data[study.name] = ray.get(ref)
        except Exception as error:
            del self._studying[searching]  # it awaits the data, and ends with the same error
            self._fail_study(study, error)
            return
        self.recorder.study_started(self.plan, study, data)
        self.ledger.update_study(study.name, status="running", notes=data.told, data_fingerprint=data.fingerprint)
        self._phase("training")

    def _finish_study(self, study: Study, ref: ray.ObjectRef[Any]) -> None:
        self._follow(wait_s=0.0)
        try:
            ray.get(ref)
        except Exception as error:
            self.desk.abandon(study.name)
            self._follow(wait_s=0.0)
            self._fail_study(study, error)
            return
        state = self.ledger.settle(study.name)
        if state.best is None:
            reasons = sorted({trial.error for trial in state.trials if trial.error})
            self._fail_study(study, TuneryError(f"every trial failed: {'; '.join(reasons)}"))
            return
        self._phase(f"registering the best adapter of {study.name}")
        from tunery.cluster.promotion import Promoter  # loads MLflow, which nothing before this should wait for

        try:
            promoter = Promoter(self.folder, self.plan, self.profile, self.recorder, self._asked_to_stop)
            outcome = promoter.promote(study, self._data[study.name], state)
        except (TuneryError, StorageError) as error:
            self._fail_study(study, error)
            return
        self.ledger.update_study(
            study.name,
            status="finished",
            model=outcome.model,
            model_version=outcome.version,
            champion=outcome.champion,
            verdict=outcome.verdict,
        )
        self.recorder.study_ended(study.name, "FINISHED")
        self._phase("training" if self._studying else "")

    def _fail_study(self, study: Study, error: BaseException) -> None:
        log.error("study %s failed", study.name, exc_info=error)
        cause = getattr(error, "cause", None) or error
        told = str(cause)
        if not isinstance(cause, TuneryError | StorageError | TunerError):
            told = f"{type(cause).__name__}: {cause}; `platform logs {self.plan.run_id}` shows where"
        self.ledger.update_study(study.name, status="failed", error=told)
        self.recorder.study_ended(study.name, "FAILED")

    # -- the end -----------------------------------------------------------------------------------------------

    def ask_to_stop(self, signum: int, _: FrameType | None) -> None:
        """Signal handler."""
        log.warning("asked to stop by signal %d", signum)
        self._stop = True

    def _asked_to_stop(self) -> bool:
        self._stop = self._stop or self.folder.stop_file.exists()
        return self._stop

    def _left(self) -> list[Study]:
        """The studies that have not ended."""
        return [study for study in self.plan.studies if self.ledger.study(study.name).status not in ENDED]

    def _conclude(self) -> int:
        """All studies have ended; the exit code."""
        failed = [study.name for study in self.ledger.state.studies if study.status == "failed"]
        self._end("failed" if failed else "finished", f"failed: {', '.join(failed)}" if failed else "")
        return EXIT_FAILED if failed else 0

    def _go_home(self) -> int:
        """Stop: no new trials, a checkpoint of every seat, states that say so. `resume` goes on from there."""
        self._phase("stopping")
        self._take_prepared()
        for ref in [*self._studying, *self._preparing]:
            ray.cancel(ref, force=True)
        self._preparing.clear()
        self.packs.send_home()
        self._follow(wait_s=0.0)
        now = time.time()
        for study, trial in list(self.ledger.running()):
            self.ledger.end(study, trial.number, "stopped", "the run was asked to stop", now)
            self.recorder.trial_stopped(study, trial.number)
        for state in self.ledger.state.studies:
            if state.status in ("waiting", "running"):
                self.ledger.update_study(state.name, status="stopped")
                self.recorder.study_ended(state.name, "KILLED")
        self._end("stopped", "")
        return EXIT_STOPPED

    def _end(self, status: RunStatus, error: str) -> None:
        ended_at = time.time()
        if status != "stopped":  # it may go on, and somebody waits for its end
            self._phase("writing the report")
            state = self.ledger.state.model_copy(update={"status": status, "ended_at": ended_at, "phase": ""})
            error = "; ".join(filter(None, [error, write_report(self.folder, state, self.plan, self.recorder)]))
        self._phase("sending the last metrics to MLflow")
        # Whoever has asked for the end waits for it, and not for MLflow.
        problem = self.recorder.close(give_up=self._asked_to_stop if status != "stopped" else None)
        if problem:
            rest = f"not all of it is in MLflow: {problem}; `platform resume {self.plan.run_id}` brings the rest there"
            error = "; ".join(filter(None, [error, rest]))
        self.ledger.update(status=status, error=error, ended_at=ended_at, phase="", unsent=bool(problem))
        self._write_state(force=True)

    def _phase(self, phase: str) -> None:
        if phase:
            log.info("%s", phase)
        self.ledger.update(phase=phase)
        self._write_state(force=True)

    def _write_state(self, *, force: bool = False) -> None:
        began = time.monotonic()
        if force or began >= self._next_state:
            self.ledger.update(updated_at=time.time())
            self.folder.write_state(self.ledger.state)
            if self._gauges is not None and ray.is_initialized():
                self._gauges.tell(trial for _, trial in self.ledger.running())
            now = time.monotonic()
            self._next_state = now + max(STATE_INTERVAL_S, (now - began) / STATE_SHARE)


def open_driver(folder: RunFolder, home: Home, profile: Profile) -> Driver:
    """The driver of a run folder, new or begun before."""
    plan = Plan.model_validate_json(folder.plan_file.read_bytes())
    now = time.time()
    ledger = Ledger.begin(plan, tracking_uri=profile.tracking_uri, now=now)
    if folder.state_file.exists():
        ledger = Ledger(folder.state().resumed(now))
    ledger.update(status="running")
    folder.stop_file.unlink(missing_ok=True)
    recorder = Recorder(folder, profile, tensorboard=plan.spec.tracking.tensorboard)
    return Driver(folder, plan, home, profile, ledger, recorder)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="tunery.cluster.driver")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default=None)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--ray", default=None, help="the cluster to join, whatever the profile says")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    home = Home.from_environment()
    folder = RunFolder(arguments.folder.resolve())
    profile = load_profile(arguments.profile, home)
    if arguments.ray:
        profile = profile.model_copy(update={"ray": arguments.ray})
    # Secrets reach MLflow, Optuna's database and the store from here on, through the environment alone.
    os.environ.update(profile.environment())
    if arguments.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the run's processes inherit it, and the hub's client heeds it
    with folder.lock.hold():
        driver = open_driver(folder, home, profile)
        signal.signal(signal.SIGTERM, driver.ask_to_stop)
        signal.signal(signal.SIGINT, driver.ask_to_stop)
        try:
            return driver.run()
        except SystemExit:  # SIGTERM while Ray starts, which has a handler of its own meanwhile: nothing had begun
            driver.ledger.update(status="stopped", ended_at=time.time(), phase="")
            folder.write_state(driver.ledger.state)
            return EXIT_STOPPED
        except BaseException as error:
            log.exception("the driver failed")
            driver.ledger.update(status="failed", error=f"{type(error).__name__}: {error}", ended_at=time.time())
            folder.write_state(driver.ledger.state)
            raise


if __name__ == "__main__":
    sys.exit(main())
