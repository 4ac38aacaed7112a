"""The arms of `benchmarks.makespan`: how each is started, and what its clock holds.

An arm's wall time is that of its processes from the first one's start to the last one's end: interpreters, imports,
loading, tokenising, training, evaluating after every epoch, and for the platform the registration of its best model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.sweeps.outcome import Outcome, Trial, trials_of
from benchmarks.sweeps.sweep import Draw, Sweep
from tunery.home import Home
from tunery.runs import RunState, TrialState, run_folders

ROOT = Path(__file__).parents[2]
LOG_LINES = 15
"""Of a process that failed, shown."""


@dataclass(frozen=True)
class Job:
    """One arm's run."""

    sweep: Sweep
    draws: Sequence[Draw]
    folder: Path
    """Empty, for whatever the arm writes."""
    numbers: Sequence[int]
    """Trials that are run; fewer than all only where the rest is scaled up from them."""


@dataclass(frozen=True)
class Arm:
    """Who runs the sweep."""

    letter: str
    what: str
    run: Callable[[Job], Outcome]


def known() -> dict[str, Arm]:
    """Every arm by name, in the order of the claim."""
    return {
        "hf-padded": Arm("a", "HF Trainer + PEFT padded to the longest allowed, a process a trial", _hf("padded")),
        "hf-grouped": Arm("b", "the same, length-grouped", _hf("grouped")),
        "hf-grouped-per-core": Arm("b2", "the same, a process a core, one thread each", _hf("grouped", per_core=True)),
        "ray-tune": Arm("c", "Ray Tune + Optuna over (b), a trial a core", _ray_tune),
        "bare": Arm("d", "the engine's plain loop, unpadded, one trial after another, one process", _bare),
        "ours-one": Arm("e", "platform submit, one pack with one seat", _platform("one")),
        "ours-packs": Arm("f", "platform submit, a pack a core", _platform("packs")),
        "ours-asha": Arm("g", "the same, with early stopping (ASHA)", _platform("asha")),
    }


def _hf(kind: Literal["padded", "grouped"], *, per_core: bool = False) -> Callable[[Job], Outcome]:
    def run(job: Job) -> Outcome:
        side_by_side = job.sweep.cores if per_core else 1
        threads = 1 if per_core else job.sweep.cores
        began = time.perf_counter()
        with ThreadPoolExecutor(side_by_side) as pool:
            parts = list(pool.map(lambda number: _child(job, kind, [number], threads=threads), job.numbers))
        wall_s = time.perf_counter() - began
        trials = tuple(trial for part in parts for trial in part)
        planned = job.sweep.trials
        return Outcome(wall_s * planned / len(job.numbers), trials, planned)

    return run


def _ray_tune(job: Job) -> Outcome:
    return _one_process(job, "tune", threads=1)


def _bare(job: Job) -> Outcome:
    return _one_process(job, "bare", threads=job.sweep.cores)


def _one_process(job: Job, kind: str, *, threads: int) -> Outcome:
    began = time.perf_counter()
    trials = _child(job, kind, job.numbers, threads=threads)
    return Outcome(time.perf_counter() - began, trials, job.sweep.trials)


def _child(job: Job, kind: str, numbers: Sequence[int], *, threads: int) -> tuple[Trial, ...]:
    """Run `benchmarks.sweeps.child`."""
    stem = f"{kind}-{numbers[0]}"
    sweep, draws, out = (job.folder / f"{stem}-{name}.json" for name in ("sweep", "draws", "out"))
    sweep.write_text(job.sweep.model_dump_json())
    draws.write_text(json.dumps([dict(draw) for draw in job.draws]))
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "benchmarks.sweeps.child",
        kind,
        sweep,
        draws,
        out,
        *map(str, numbers),
    ]
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "RIVAL_STORAGE": str(job.folder),
    }
    _run(command, job.folder / f"{stem}.log", settings)
    return trials_of(json.loads(out.read_text()))


def _platform(kind: Literal["one", "packs", "asha"]) -> Callable[[Job], Outcome]:
    def run(job: Job) -> Outcome:
        sweep, home = job.sweep, job.folder / "home"
        packs, seats = (1, 1) if kind == "one" else (sweep.cores, sweep.seats)
        spec = job.folder / "spec.json"
        pruner: Literal["asha", "none"] = "asha" if kind == "asha" else "none"
        text = sweep.spec(f"makespan-{kind}", packs=packs, seats=seats, threads=sweep.cores // packs, pruner=pruner)
        spec.write_text(text)
        command: list[str | Path] = [sys.executable, "-m", "tunery.cli.app", "submit", spec]
        began = time.perf_counter()
        _run(command, job.folder / "submit.log", {"TUNERY_HOME": str(home)})
        wall_s = time.perf_counter() - began
        (folder,) = run_folders(Home(home).runs)
        return Outcome(wall_s, _trials(folder.state(), job.draws), sweep.trials)

    return run


def _trials(state: RunState, draws: Sequence[Draw]) -> tuple[Trial, ...]:
    (study,) = state.studies
    found = {trial.number: dict(trial.config) for trial in study.trials}
    if found != dict(enumerate(map(dict, draws))):
        raise SystemExit(f"the platform drew other configurations than the arms were given: {found}, not {list(draws)}")
    return tuple(_trial(trial) for trial in study.trials)


def _trial(state: TrialState) -> Trial:
    assert state.started_at is not None
    assert state.ended_at is not None
    return Trial(
        number=state.number,
        objective=state.objective,
        loss=state.metrics.get("loss"),
        started_s=state.started_at,
        ended_s=state.ended_at,
        pruned=state.status == "pruned",
    )


def _run(command: Sequence[str | Path], log: Path, settings: Mapping[str, str]) -> None:
    """Run to the end, with these environment variables. SystemExit with the log's end where it fails."""
    paths = [str(ROOT / "platform"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **settings, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("wb") as output:
        code = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
        raise SystemExit(f"{' '.join(map(str, command[1:4]))} failed with exit code {code}:\n{end}")
