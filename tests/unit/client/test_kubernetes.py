"""Runs that are sent to Kubernetes, against an API server and a tracking server in memory, over real sockets."""

from __future__ import annotations

import copy
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.certificates import certificate
from tests.deploy import schemas
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins import kubernetes_http
from tests.stand_ins.kubernetes import ApiServer, Fault
from tests.unit.client.fakes import SPEC, make_plan, wait_for
from tests.unit.client.on_kubernetes import CANARY, PLAN, RUN, Place
from tunery import __version__
from tunery.cli.app import run
from tunery.client import Client, _rayjob, client_for
from tunery.errors import (
    ConflictError,
    InputError,
    MissingExtraError,
    ProfileError,
    TuneryError,
    UnreachableError,
)
from tunery.k8s import api, render
from tunery.kube import Kubernetes
from tunery.parcel import Parcel
from tunery.profile import load_profile


def test_what_is_printed_is_what_is_sent(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.configure()
    spec = place.folder / "small.yaml"
    spec.write_text(SPEC)
    assert run(["submit", str(spec), "--dry-run"]) == 0
    printed = capsys.readouterr()
    (shown,) = yaml.safe_load_all(printed.out)
    assert "POST /apis/ray.io/v1/namespaces/tunery/rayjobs (the current context of" in printed.err
    assert place.server.asked == [], "nothing was contacted"
    assert run(["submit", str(spec), "--detach"]) == 0
    sent = copy.deepcopy(place.job())
    for of_the_server in ("uid", "resourceVersion", "creationTimestamp"):
        del sent["metadata"][of_the_server]
    assert {**sent, "status": None} == {**shown, "status": None}
    assert "POST /apis/ray.io/v1/namespaces/tunery/rayjobs?fieldValidation=Strict" in place.server.asked
    assert CANARY not in printed.out + printed.err + json.dumps(sent)
    assert sent["spec"]["metadata"]["tunery.version"]
    assert sent["spec"]["entrypoint"] == "exec python -P -m tunery.cluster.job"


def test_ten_at_once_are_one_job(place: Place) -> None:
    place.configure()
    clients = [place.client() for _ in range(10)]
    outcomes: list[str] = []
    barrier = threading.Barrier(len(clients))

    def send(client: Client) -> None:
        barrier.wait()
        outcomes.append(client.send(PLAN).outcome)

    threads = [threading.Thread(target=send, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["attached"] * 9 + ["started"]
    assert place.job()["spec"]["jobId"] == RUN
    assert place.client().send(PLAN).outcome == "attached"
    with pytest.raises(ConflictError, match="glue"):
        place.client().send(make_plan(tasks=("sst2",)))


def test_an_answer_that_is_lost_makes_no_second_job(place: Place) -> None:
    place.server.faults = [Fault(after=True, method="POST")]
    assert place.client().send(PLAN).outcome == "attached"
    assert place.job()["metadata"]["name"] == RUN


def test_a_job_that_is_being_deleted_makes_room_for_the_next(place: Place) -> None:
    client, jobs = place.client(), place.jobs()
    client.send(PLAN)
    client.stop(RUN)
    assert "deletionTimestamp" in place.job()["metadata"]
    looked = f"GET /apis/ray.io/v1/namespaces/tunery/rayjobs/{RUN}"

    def release() -> None:
        wait_for(lambda: looked in place.server.asked)
        place.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    parcel = Parcel(RUN, b"{}", __version__)
    assert jobs.submit(RUN, parcel)
    releasing.join()
    assert "deletionTimestamp" not in place.job()["metadata"]


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("glue-01234567", "glue-01234567"),
        ("glue-01234567.2-again", "run-glue-01234567-2-again-"),
        ("9-01234567", "run-9-01234567-"),
        ("a_b.c-01234567", "run-a-b-c-01234567-"),
        ("x" * 63 + "-01234567", "run-" + "x" * 34 + "-"),
    ],
)
def test_a_jobs_name_is_one_that_kuberay_takes(job: str, name: str) -> None:
    found = _rayjob.name_of(job)
    assert found.startswith(name)
    assert found == _rayjob.name_of(job)
    assert len(found) <= 47
    assert found != _rayjob.name_of(job + "x")


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_what_can_pass_is_tried_again(place: Place) -> None:
    client = place.client()
    assert client.runs() == ()
    faults = [Fault(500), Fault(429, {"Retry-After": "7"}), Fault(), Fault(503), Fault(after=True)]
    place.server.faults = [replace(fault, method="POST") for fault in faults]
    assert client.send(PLAN).outcome == "attached", "the answer that said so was lost"
    assert sum(each.startswith("POST") for each in place.server.asked) == 6
    assert place.slept == [0.002, 7.0, 0.002, 0.002, 0.002]
    place.server.faults = [Fault(429, {"Retry-After": "9999"}, method="POST")]
    assert client.send(make_plan("other")).outcome == "started"
    assert place.slept[-1] == api.LONGEST_WAIT_S


def test_with_a_bound(place: Place) -> None:
    client = place.client()
    place.server.faults = [Fault()] * 20
    with pytest.raises(UnreachableError, match=r"the API server at http://127.* does not answer: .*goes on without it"):
        client.runs()
    assert len(place.server.asked) == 3, "a wrong address is told soon"
    place.server.faults = []
    client.runs()
    place.server.faults = [Fault(503, method="POST")] * 20
    with pytest.raises(UnreachableError, match="does not answer: HTTP 503, a fault of the tests"):
        client.send(PLAN)
    assert sum(each.startswith("POST") for each in place.server.asked) == 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"token": "another"},
            ProfileError,
            r"does not know who asks \(HTTP 401: Unauthorized\): log in again, or name",
        ),
        (
            {"forbidden": "list rayjobs"},
            ProfileError,
            r'HTTP 403: rayjobs is forbidden: User "ann" cannot list .* Role tunery-submitter',
        ),
        ({"forbidden": "create rayjobs"}, ProfileError, r'User "ann" cannot create resource "rayjobs"'),
        ({"kinds": stand_in.CORE}, ProfileError, r"knows no rayjobs of ray.io/v1: install KubeRay's operator"),
        ({"namespace": "elsewhere"}, ProfileError, "namespace 'elsewhere' is not there: `platform k8s apply --profile"),
        ({"mistakes": lambda _: ["$.spec.tpyo"]}, InputError, r"does not take the RayJob: .*\$\.spec\.tpyo; .*'team'"),
        (
            {"faults": [Fault(400, method="POST")]},
            InputError,
            "cannot take the request .HTTP 400: a fault of the tests",
        ),
        ({"faults": [Fault(409, method="POST")]}, UnreachableError, "cannot start a RayJob: HTTP 409"),
        (
            {"context": "another"},
            ProfileError,
            r"'team' cannot be used for Kubernetes: context 'another' of .*kubeconfig",
        ),
        ({"image": "r/tunery:9.9.9"}, ConflictError, r"compiled by tunery 0\.1\.0, and the image r/tunery:9.9.9 has"),
    ],
)
def test_what_cannot_pass_says_what_to_do(
    place: Place, change: dict[str, Any], error: type[TuneryError], message: str
) -> None:
    given = {key: value for key, value in change.items() if key in ("token", "namespace", "context", "image")}
    client = place.client(**given)
    for key, value in change.items():
        if key == "forbidden":
            place.server.forbidden.add(value)
        elif key not in given:
            setattr(place.server, key, value)
    with pytest.raises(error, match=message):
        client.send(PLAN)
    assert place.slept == [], "it was not tried again"
    assert place.server.jobs() == {}


def test_another_object_of_that_name_is_left_alone(place: Place) -> None:
    place.server.add("RayJob", RUN, namespace="tunery", spec={"entrypoint": "sleep"})
    with pytest.raises(ConflictError, match=f"there is a RayJob {RUN} in namespace tunery which is not job {RUN}"):
        place.client().send(PLAN)
    assert place.job()["spec"] == {"entrypoint": "sleep"}


@pytest.mark.skipif(not schemas.FOLDER.is_dir(), reason=f"no KubeRay schemas in {schemas.FOLDER}")
def test_a_field_that_kuberay_does_not_know_is_refused(
    place: Place, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = copy.deepcopy(template)
    wrong["spec"]["backofLimit"] = 2
    monkeypatch.setattr(render, "job", lambda _: copy.deepcopy(wrong))
    with pytest.raises(InputError, match="backofLimit"):
        place.client().send(PLAN)


def test_without_a_kubeconfig_and_without_the_package(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place.configure()
    nowhere = load_profile(None, place.home).model_copy(update={"kubernetes": Kubernetes()})
    with pytest.raises(ProfileError, match=r"the current context of .*\.kube/config: "):
        client_for(nowhere, place.home).runs()
    for name in [name for name in sys.modules if name == "tunery.k8s.api" or name.split(".")[0] == "kubernetes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tunery\[kubernetes\]'"):
        place.client().runs()


def test_certificates(place: Place, tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with kubernetes_http.serving(ApiServer(), made.server) as server:
        place.server = server
        assert place.client(ca=made.ca).runs() == ()
        with pytest.raises(UnreachableError, match=r"certificate that is not trusted here.*certificate-authority in"):
            place.client().runs()
