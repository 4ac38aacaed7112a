"""Runs on this machine: a detached driver a run, in a session of its own, that outlives the command which started it.

All that is known of a run lies in its folder (`tunery.runs`); this module starts drivers and reads folders.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from storage.checkpoints import CheckpointStore
from storage.files import write_whole
from tunery.begin import Found, begun_with
from tunery.client import STOP_GRACE_S, JobHandle, Preview
from tunery.client._changes import refusal
from tunery.client._checkpoints import copy_in, find_checkpoint
from tunery.client._trials import study_with
from tunery.errors import ConflictError, InputError, NotFoundError, RunError
from tunery.home import Home
from tunery.plan import Plan
from tunery.runs import ENDED, LOCK_FD, RunFolder, RunState, find_run, first_of, generation, name_of, run_folders

if TYPE_CHECKING:
    from tunery.client import Client
    from tunery.profile import Profile

# -P: a stray `random.py` in the folder where the command is given must not be imported by the driver.
DRIVER = (sys.executable, "-P", "-m", "tunery.cluster.driver")
_PROFILE = "profile"
POLL_S = 0.25
"""Between two looks at a run's folder."""
TERMINATE_GRACE_S = 15.0
"""Between SIGTERM and SIGKILL for a driver that did not heed the request to stop."""


def connect(profile: Profile, home: Home) -> Client:
    """The client that runs plans on this machine."""
    secrets = nullcontext if profile.store is None else profile.secrets_at_hand
    return LocalClient(home, profile=profile.name, secrets=secrets)


class LocalClient:
    """See `tunery.client.Client`. `driver_command` is called with the run's folder and the profile's name.

    `secrets`: within its context checkpoints are read, wherever they are.
    """

    def __init__(
        self,
        home: Home,
        *,
        driver_command: Sequence[str] | None = None,
        profile: str | None = None,
        secrets: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._home = home
        self._command = tuple(driver_command or DRIVER)
        self._profile = profile
        self._secrets = secrets

    def send(self, plan: Plan, *, offline: bool = False, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        plan = begun_with(plan, begin) if begin else plan
        with self._launching():
            self._refuse_another_content(plan)
            wanted = plan.begin.digest if plan.begin else ""
            same = [folder for folder in self._runs_of(plan) if _began_with(folder) == wanted]
            if not same or fresh:
                return self._start(plan, begin, profile=self._profile, offline=offline)
            if offline:
                write_whole(same[0].offline_file, b"")
            return self._go_on(same[0], also_ended=False)

    def preview(self, plan: Plan, *, offline: bool = False) -> Preview:
        folder = RunFolder(self._home.runs / first_of(plan.run_id))
        command = self._driver_command(folder, self._profile, offline=offline)
        environment = {"TUNERY_HOME": str(self._home.root)}
        return Preview("local", str(folder.root), {"command": command, "environment": environment})

    def take(self, plan: Plan, *, offline: bool, also_ended: bool) -> JobHandle:
        """Start the run whose id the plan has, or let it go on: what a cluster does with a job that was sent to it.

        `also_ended`: where it has failed or was stopped. ConflictError where a run of its name has another content.
        """
        with self._launching():
            self._refuse_another_content(plan)
            folder = RunFolder(self._home.runs / plan.run_id)
            if folder.plan_file.exists():
                if offline:
                    write_whole(folder.offline_file, b"")
                return self._go_on(folder, also_ended=also_ended)
            return self._create(folder, plan, profile=self._profile, offline=offline)

    def resume(self, run: str, *, fresh: bool = False, begin: Found | None = None) -> JobHandle:
        folder = self.folder(run)
        if fresh:
            plan = self.plan(run)
            if begin is not None:
                plan = begun_with(plan, begin)
            elif plan.begin is not None:
                with self._secrets():
                    begin = copy_in(folder, plan.begin.checkpoint)
            with self._launching():
                profile = self._kept_profile(folder) or self._profile
                return self._start(plan, begin, profile=profile, offline=folder.offline_file.exists())
        with self._launching():
            if begin is not None:
                self._set_back(folder, begin)
            return self._go_on(folder, also_ended=True)

    def checkpoint(self, text: str, *, of: str = "") -> Found:
        with self._secrets():
            return find_checkpoint(text, self._home.runs, of=of)

    def _runs_of(self, plan: Plan) -> list[RunFolder]:
        """All runs of a plan's spec, the newest first."""
        mine = [each for each in run_folders(self._home.runs) if first_of(each.run_id) == first_of(plan.run_id)]
        return sorted(mine, key=lambda folder: -generation(folder.run_id))

    def _start(self, plan: Plan, begin: Found | None, *, profile: str | None, offline: bool) -> JobHandle:
        """A new run, beside those of the same spec that are there."""
        others = self._runs_of(plan)
        if busy := next((folder.run_id for folder in others if self._works(folder)), None):
            raise ConflictError(
                f"run {busy} of the same spec is under way; nothing was started: "
                f"stop it first (platform stop {busy}), or give the new one another name (--set name=...)"
            )
        first = first_of(plan.run_id)
        run = f"{first}.{generation(others[0].run_id) + 1}" if others else first
        folder = RunFolder(self._home.runs / run)
        if begin is not None:
            # A copy: what the run begins with must be there as long as the run, whatever becomes of the other one.
            CheckpointStore(folder.begin).save(begin.checkpoint.step, begin.checkpoint.files, metrics={}, best=False)
        return self._create(folder, plan.model_copy(update={"run_id": run}), profile=profile, offline=offline)

    def _create(self, folder: RunFolder, plan: Plan, *, profile: str | None, offline: bool) -> JobHandle:
        if offline:
            write_whole(folder.offline_file, b"")
        # The plan last: a folder without one is no run.
        write_whole(folder.plan_file, plan.model_dump_json(indent=1).encode())
        self._start_driver(folder, profile=profile)
        return JobHandle(folder.run_id, "started")

    def _set_back(self, folder: RunFolder, begin: Found) -> None:
        run, place = folder.run_id, f"{begin.study}/{begin.trial}"
        over = f"`platform resume {run} --fresh --from {begin.name}` starts the run over from it"
        if begin.run != run:
            raise InputError(f"{begin.name} is no checkpoint of run {run}, whose trials go on from their own; {over}")
        if self._works(folder):
            raise ConflictError(f"run {run} is under way: stop it first (platform stop {run})")
        trials = {trial.number: trial for each in self.state(run).studies if each.name == begin.study
                  for trial in each.trials}  # fmt: skip
        status = trials[begin.trial].status if begin.trial in trials else "unknown"
        if status not in ("waiting", "running", "stopped"):
            raise ConflictError(f"trial {place} of run {run} is {status} and its study has counted it; {over}")
        with self._secrets():
            CheckpointStore(folder.checkpoints(begin.study, begin.trial)).set_back(begin.checkpoint)

    def _go_on(self, folder: RunFolder, *, also_ended: bool) -> JobHandle:
        # First the driver, then the state: it may end between the two, and its last state must be seen then.
        if self._works(folder):
            return JobHandle(folder.run_id, "attached")
        state = self.state(folder.run_id)
        if state.status == "finished" and not state.unsent:
            return JobHandle(folder.run_id, "finished")
        if state.status in ("failed", "stopped") and not also_ended:
            return JobHandle(folder.run_id, "ended")
        self._start_driver(folder, again=state)
        return JobHandle(folder.run_id, "resumed")

    def _works(self, folder: RunFolder) -> bool:
        """Whether a driver works on the run; one that has told the run's end is waited for, as it lets Ray go."""
        if folder.driven() and self.state(folder.run_id).status in ENDED:
            _wait(lambda: not folder.driven(), STOP_GRACE_S)
        return folder.driven()

    def find(self, text: str) -> str:
        return find_run(self._home.runs, text).run_id

    def runs(self) -> tuple[RunState, ...]:
        return tuple(folder.current(name=folder.name) for folder in run_folders(self._home.runs))

    def state(self, run: str) -> RunState:
        return self.folder(run).current(name=name_of(run))

    def plan(self, run: str) -> Plan:
        file = self.folder(run).plan_file
        try:
            return Plan.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise ConflictError(f"{file} was written by another version of tunery: {error}") from error

    def folder(self, run: str) -> RunFolder:
        folder = RunFolder(self._home.runs / run)
        if not folder.plan_file.exists():
            raise NotFoundError(f"no run {run!r}")
        return folder

    def watch(self, run: str) -> Iterator[RunState]:
        state = self.state(run)
        while state.status not in ENDED:
            yield state
            time.sleep(POLL_S)
            state = self.state(run)
        yield state

    def stop(self, run: str, *, grace_s: float = STOP_GRACE_S) -> RunState:
        folder = self.folder(run)
        if not folder.driven() and self.state(run).status in ("finished", "failed", "stopped"):
            return self.state(run)
        folder.stop_file.touch()
        if not _wait(lambda: not folder.driven(), grace_s):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                _signal_group(folder, sign)
                if _wait(lambda: not folder.driven(), TERMINATE_GRACE_S):
                    break
            else:
                raise RunError(f"run {run} does not end: its driver, process {folder.lock.pid()}, is still there")
        return self.state(run)

    def log(
        self, run: str, *, study: str | None = None, trial: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        folder = self.folder(run)
        file = (
            folder.driver_log if trial is None else folder.trial_log(study_with(self.state(run), study, trial), trial)
        )
        if not follow and not file.exists():
            raise NotFoundError(f"nothing is logged in {file} yet")
        return _lines(file, (lambda: self.state(run).status not in ENDED) if follow else (lambda: False))

    @contextmanager
    def _launching(self) -> Iterator[None]:
        """One launch at a time in this home: ten submits of a spec at once start one driver."""
        self._home.runs.mkdir(parents=True, exist_ok=True)
        with (self._home.runs / ".launch.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _refuse_another_content(self, plan: Plan) -> None:
        for folder in run_folders(self._home.runs):
            if name_of(folder.run_id) != name_of(plan.run_id) or first_of(folder.run_id) == first_of(plan.run_id):
                continue
            old, state = _spec(folder.plan_file.read_bytes()), self.state(folder.run_id)
            raise ConflictError(refusal(folder.run_id, state.status, old, plan.spec.normal_form()))

    def _start_driver(self, folder: RunFolder, *, again: RunState | None = None, profile: str | None = None) -> None:
        folder.driver_log.parent.mkdir(parents=True, exist_ok=True)
        name = self._profile_of(folder, profile or self._profile)
        command = self._driver_command(folder, name, offline=folder.offline_file.exists())
        with folder.lock.take() as lock, folder.driver_log.open("ab") as log:
            folder.stop_file.unlink(missing_ok=True)
            if again is not None and folder.state_file.exists():
                # Whoever watches must not take the state of the last time for that of this one.
                fresh = {"status": "starting", "phase": "going on", "error": "", "ended_at": None}
                folder.write_state(again.model_copy(update=fresh))
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in this terminal, or its closing, is not for the driver.
                start_new_session=True,
                pass_fds=[lock.fileno()],
                env={**os.environ, "TUNERY_HOME": str(self._home.root), LOCK_FD: str(lock.fileno())},
            )
            folder.lock.note(lock, process.pid)

    def _driver_command(self, folder: RunFolder, profile: str | None, *, offline: bool) -> list[str]:
        named = ["--profile", profile] if profile else []
        return [*self._command, str(folder.root), *named, *(["--offline"] if offline else [])]

    def _profile_of(self, folder: RunFolder, profile: str | None) -> str | None:
        # A run's ledgers lie where its first start has begun them: that profile is its own from then on.
        kept = self._kept_profile(folder)
        if kept is None and profile is not None:
            write_whole(folder.root / _PROFILE, profile.encode())
        return kept or profile

    def _kept_profile(self, folder: RunFolder) -> str | None:
        kept = folder.root / _PROFILE
        return kept.read_text() if kept.exists() else None


def _began_with(folder: RunFolder) -> str:
    """Digest of the checkpoint that its trials began with; '' where they began with none."""
    return str((json.loads(folder.plan_file.read_bytes()).get("begin") or {}).get("digest", ""))


def _spec(plan: bytes) -> dict[str, object]:
    spec = json.loads(plan).get("spec", {})
    assert isinstance(spec, dict)
    return spec


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _signal_group(folder: RunFolder, sign: signal.Signals) -> None:
    # The pid is believed only while the lock is held: then it cannot have been given to another process.
    pid = folder.lock.pid()
    if pid is None:
        return
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, sign)
        else:  # started by hand, in somebody else's group
            os.kill(pid, sign)
    except ProcessLookupError:
        return


def _lines(file: Path, goes_on: Callable[[], bool]) -> Iterator[str]:
    """The file's lines, and those that come while `goes_on` holds."""
    more = True
    while more and not file.exists():
        time.sleep(POLL_S)
        more = goes_on()
    if not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as handle:
        pending = ""
        while True:
            # Asked before reading: what was written before the end is then read after it.
            more = goes_on()
            for piece in handle:
                pending += piece
                if pending.endswith("\n"):
                    yield pending.rstrip("\r\n")
                    pending = ""
            if not more:
                break
            time.sleep(POLL_S)
        if pending:
            yield pending


if TYPE_CHECKING:
    _: Client = LocalClient(Home(Path()))
