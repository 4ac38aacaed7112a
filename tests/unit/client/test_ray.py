"""Runs that are sent to Ray's Jobs API, against a stand-in and a tracking server in memory, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import certificate
from tests.unit.client.fakes import SPEC, make_plan
from tests.unit.client.on_ray import RayPlace, serving
from tunery.cli import _checks
from tunery.cli.app import run
from tunery.client import client_for
from tunery.client.ray import RayJobs
from tunery.errors import ProfileError, UnreachableError
from tunery.plan import compile_plan
from tunery.profile import load_profile
from tunery.runs import RunStatus
from tunery.spec import load_spec

PLAN = make_plan()
Capture = pytest.CaptureFixture[str]


def test_certificates(ray_laptop: Path, capsys: Capture) -> None:
    made = certificate(ray_laptop)
    spec = ray_laptop / "small.yaml"
    spec.write_text(SPEC)
    with serving(ray_laptop, made.server) as place:
        told = r'127\.0\.0\.1.* not trusted here: .*name the file .* vouches for it: ca = "FILE" in \[profiles\.team\]'
        with pytest.raises(UnreachableError, match=f"the Jobs API at https://{told}"):
            place.client().runs()
        assert place.api.asked == [], "the token was not sent"
        for command in (["submit", str(spec), "--detach"], ["ui"]):
            assert run(command) == 6
            error = " ".join(capsys.readouterr().err.split())
            assert "MLflow at https://127.0.0.1" in error
            assert 'ca = "FILE" in [profiles.team]' in error
        place.configure(ca=made.ca)
        assert run(["submit", str(spec), "--detach"]) == 0
        assert run(["ls", "-o", "json"]) == 0
        out = capsys.readouterr().out
        assert json.loads(out[out.index('{\n  "runs"') :])["runs"][0]["status"] == "starting"
        assert _checks.store("tracking", place.tracking.url, load_profile(None, place.home)).ok, "as doctor sees it"
        assert run(["ui"]) == 0
        assert place.tracking.url in capsys.readouterr().out


def test_a_certificate_for_another_address_names_the_one_that_is_trusted(ray_laptop: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")
    with serving(ray_laptop, certificate(ray_laptop).server) as place:
        place.configure(ca=other.ca)
        with pytest.raises(UnreachableError, match=f"none that {other.ca}, the ca of profile 'team', vouches for"):
            place.client().runs()


@pytest.mark.parametrize(
    ("ending", "code", "out"),
    [
        ("finished", 0, "glue-cola version 1 is the champion: no champion before it"),
        ("failed", 5, "every trial of cola failed"),
        ("stopped", 130, "platform resume"),
    ],
)
def test_a_run_is_shown_to_its_end(
    ending: RunStatus, code: int, out: str, ray_place: RayPlace, tmp_path: Path, capsys: Capture
) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC)
    run_id = compile_plan(load_spec(spec)).run_id
    with ray_place.at_work() as work:
        work.ends[run_id] = ending
        assert run(["submit", str(spec)]) == code
    shown = capsys.readouterr()
    assert out in shown.out
    assert f"{run_id}: 1 study, 1 trial of lora on prajjwal1/bert-tiny; profile team" in shown.err
    assert run(["submit", str(spec), "-o", "json"]) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out)["status"] == ending
    assert "nothing was started" in shown.err
    assert list(ray_place.api.jobs) == [run_id]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("x\nerror: the plan was sent by tunery 0.0.1, and the cluster has tunery 0.1.0\n", "the plan was sent by"),
        ("Traceback\nKeyError: 'RAY_ADDRESS'\n", "the job has ended with exit code 5: KeyError: 'RAY_ADDRESS'"),
    ],
)
def test_a_job_that_fails_before_it_has_told_anything(log: str, said: str, ray_place: RayPlace) -> None:
    client = ray_place.client()
    client.send(PLAN)
    ray_place.api.operate(PLAN.run_id, "FAILED", code=5, log=log)
    state = client.state(PLAN.run_id)
    assert state.status == "failed"
    assert state.error.startswith(said)
    assert list(client.log(PLAN.run_id)) == log.splitlines()
    assert client.resume(PLAN.run_id).outcome == "resumed"
    assert list(ray_place.api.jobs) == [PLAN.run_id, f"{PLAN.run_id}-again-1"]


def test_another_submit_that_was_quicker_has_started_it(ray_place: RayPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ray_place.client()
    looked = RayJobs._get

    def too_soon(self: RayJobs, job: str) -> Any:
        found = looked(self, job)
        if found is None:
            monkeypatch.setattr(RayJobs, "_get", looked)
            assert first.send(PLAN).outcome == "started"
        return found

    monkeypatch.setattr(RayJobs, "_get", too_soon)
    assert ray_place.client().send(PLAN).outcome == "attached"
    assert sum(each.startswith("POST") for each in ray_place.api.asked) == 2, "Ray has refused the second"
    assert list(ray_place.api.jobs) == [PLAN.run_id]


@pytest.mark.parametrize(("token", "code"), [("another", 403), ("", 401)])
def test_who_may_not_is_told_which_secret(
    token: str, code: int, ray_place: RayPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("TEAM_RAY_TOKEN", token)
        client = ray_place.client()
        said = "takes the secret RAY_AUTH_TOKEN from the environment variable TEAM_RAY_TOKEN, and that is not"
    else:
        profile = load_profile(None, ray_place.home).model_copy(update={"secrets": {}})
        client = client_for(profile, ray_place.home)
        said = r"lacks the secret RAY_AUTH_TOKEN: name it under \[profiles\.team\.secrets\]"
    with pytest.raises(ProfileError, match=rf"HTTP {code}: .*{said}"):
        client.send(PLAN)
    assert ray_place.api.jobs == {}
