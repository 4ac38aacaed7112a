"""A driver for tests: takes the run's lock and writes the states a real one would. Run with the run's folder.

It counts its starts in `starts`, and goes on only when the test says so by creating files in the folder:
`finish` (ends the run well), `fail` (ends it badly), `stop` (as the client does), unless FAKE_DRIVER says:
`dies` (before it writes a state), `hangs` (heeds neither `stop` nor SIGTERM), `finishes` (at once), `lingers` (after it
has told the end, until there is a file `gone`).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from tunery.runs import RunFolder, RunState, RunStatus, StudyState, TrialState

AT_WORK = "driver at work"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("--profile", "--ray"):
        parser.add_argument(name)
    parser.add_argument("--offline", action="store_true")
    place = parser.parse_args().folder
    folder = RunFolder(place)
    mode = os.environ.get("FAKE_DRIVER", "")
    with folder.lock.hold():
        with (folder.root / "starts").open("a") as starts:
            starts.write(f"{os.getpid()} {' '.join(each for each in sys.argv[1:] if each != str(place))}\n")
        if mode == "dies":
            print("ImportError: no engine in this machine", flush=True)
            return 1
        if mode == "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(AT_WORK, flush=True)
        _tell(folder, "running")
        code = _drive(folder, mode)
        while mode == "lingers" and not (folder.root / "gone").exists():
            time.sleep(0.01)
        return code


def _drive(folder: RunFolder, mode: str) -> int:
    while True:
        if mode == "finishes" or (folder.root / "finish").exists():
            _tell(folder, "finished")
            return 0
        if (folder.root / "fail").exists():
            _tell(folder, "failed")
            return 5
        if folder.stop_file.exists() and mode != "hangs":
            _tell(folder, "stopped")
            return 130
        time.sleep(0.01)


def _tell(folder: RunFolder, status: RunStatus) -> None:
    log = folder.trial_log("cola", 0)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"trial 0 is {status}\n")
    folder.write_state(state_of(folder.run_id, status))


def state_of(run: str, status: RunStatus) -> RunState:
    """A run with one study of one trial."""
    now = time.time()
    ended = now if status != "running" else None
    one = TrialState(
        number=0,
        status=status,
        config={"train.learning_rate": 0.001},
        pack="pack-0",
        epoch=0.5 if ended is None else 1.0,
        epochs=1,
        step=5 if ended is None else 10,
        steps=10,
        objective=0.5,
        metrics={"matthews_correlation": 0.5, "loss": 0.4},
        started_at=now - 30,
        ended_at=ended,
    )
    study = StudyState(
        name="cola",
        task="cola",
        status=status,
        objective="matthews_correlation",
        planned=1,
        trials=(one,),
        best=0,
        model="glue-cola" if status == "finished" else None,
        model_version="1" if status == "finished" else None,
        champion=True if status == "finished" else None,
        verdict="no champion before it" if status == "finished" else "",
        error="the only trial failed" if status == "failed" else "",
    )
    return RunState(
        run_id=run,
        name=run.rpartition("-")[0],
        status=status,
        tracking_uri="sqlite:///mlflow.db",
        studies=(study,),
        started_at=now - 30,
        updated_at=now,
        ended_at=ended,
        error="every trial of cola failed" if status == "failed" else "",
    )


if __name__ == "__main__":
    sys.exit(main())
