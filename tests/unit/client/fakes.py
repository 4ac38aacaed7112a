"""What the tests of the client and of its commands share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunery.home import Home
from tunery.plan import Plan, Study
from tunery.runs import RunFolder, run_folders
from tunery.spec.types import Spec

SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: small
model: {id: prajjwal1/bert-tiny}
tasks: [cola]
tuner: {method: lora, rank: 4, alpha: 8, dropout: 0.0, target_modules: [query, value]}
search: {trials: 1}
"""

FAKE_DRIVER = (sys.executable, str(Path(__file__).with_name("fake_driver.py")))


def make_plan(name: str = "glue", **changes: Any) -> Plan:
    """A plan with one study; equal arguments give the same run id."""
    values: dict[str, Any] = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": name,
        "model": {"id": "embedded:minilm"},
        "tasks": ("cola",),
        "tuner": {"method": "lora", "rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ("query", "value")},
        **changes,
    }
    spec = Spec.model_validate(values)
    study = Study(
        name="cola",
        task="cola",
        cell={},
        model=spec.model,
        data=spec.data,
        tuner=spec.tuner,
        train=spec.train,
        search=spec.search,
        registry_name="glue-cola",
        alias="champion",
        min_gain=0.0,
    )
    return Plan(run_id=f"{name}-{spec.digest()[:8]}", spec=spec, studies=(study,), estimates=())


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until it holds; fail after a bounded time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def the_run(home: Home) -> RunFolder:
    """The only run there is."""
    (folder,) = run_folders(home.runs)
    return folder
