"""A laptop that sends sweeps to a cluster and follows them; it shares no folder with it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import httpx
import pytest
import yaml

from tests.ray.conftest import small_spec
from tests.ray.here import Here
from tunery import mirrored
from tunery.cli.app import run
from tunery.client import Client, client_for
from tunery.errors import NotFoundError
from tunery.home import Home
from tunery.parcel import run_of
from tunery.plan import Plan, compile_plan
from tunery.profile import load_profile
from tunery.runs import TrialState
from tunery.spec import parse_spec

CONFIGURATION = """\
default = "team"

[profiles.team]
target = "ray"
jobs = "{jobs}"
tracking_uri = "{mlflow}"

[profiles.team.secrets]
MLFLOW_TRACKING_USERNAME = {{env = "TEAM_MLFLOW_USER"}}
MLFLOW_TRACKING_PASSWORD = {{env = "TEAM_MLFLOW_PASSWORD"}}
RAY_AUTH_TOKEN = {{env = "TEAM_RAY_TOKEN"}}
"""

ANN = ("ann", f"canary-{uuid.uuid4().hex}")
"""Who sends: a user of MLflow's that administers nothing. Her password is made anew: nothing else can hold it."""


def admit(here: Here) -> tuple[str, str]:
    """What docs/cluster.md says that an administrator does for somebody who is to send sweeps; her login."""
    user, password = ANN
    here.administer("2.0/mlflow/users/create", username=user, password=password)
    here.administer("2.0/mlflow/experiments/create", name=mirrored.EXPERIMENT)
    here.grant(user, "READ")
    return ANN


def equip(here: Here, login: tuple[str, str], folder: Path) -> dict[str, str]:
    """What is in the environment of a laptop whose home is below this folder, and which has that login at MLflow."""
    config = folder / "laptop.toml"
    config.write_text(CONFIGURATION.format(jobs=here.jobs, mlflow=here.url("mlflow", "mlflow")))
    user, password = login
    token = here.layout.secret("ray-token")
    secret = {"TEAM_MLFLOW_USER": user, "TEAM_MLFLOW_PASSWORD": password, "TEAM_RAY_TOKEN": token}
    return {"TUNERY_CONFIG": str(config), "TUNERY_HOME": str(folder / "laptop"), "COLUMNS": "160", **secret}


def client(laptop: Home) -> Client:
    return client_for(load_profile(None, laptop), laptop)


def spec_file(here: Here, folder: Path, name: str, **changes: object) -> Path:
    file = folder / f"{name}.yaml"
    spec = small_spec(name, here.folder / "data", registry__name=f"{name}-{{task}}", **changes)
    file.write_text(yaml.safe_dump(spec))
    return file


def plan_of(file: Path) -> Plan:
    return compile_plan(parse_spec(file.read_text(), file=file.name))


def jobs_of(here: Here, run_id: str) -> list[str]:
    """The cluster's jobs of a run, asked without the client."""
    found = httpx.get(f"{here.jobs}/api/jobs/", headers=here.token, timeout=60).json()
    return sorted(job["submission_id"] for job in found if run_of(job["metadata"]) == run_id)


def document(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, object]:
    """What a command of the laptop's prints with -o json."""
    capsys.readouterr()
    assert run([*words, "-o", "json"]) == code, capsys.readouterr()
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def log_of(mine: Client, run_id: str) -> list[str]:
    """Of the first trial, as far as it has come through the server."""
    try:
        return list(mine.log(run_id, trial=0))
    except NotFoundError:
        return []


def trials_of(mine: Client, name: str) -> dict[int, TrialState]:
    """Of the newest run of that name."""
    (run,) = (each for each in mine.runs() if each.name == name)
    return {trial.number: trial for study in mine.state(run.run_id).studies for trial in study.trials}


def steps_of(mine: Client, name: str) -> int:
    return sum(trial.step for trial in trials_of(mine, name).values())
