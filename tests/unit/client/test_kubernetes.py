"""Runs on Kubernetes, against an API server and a tracking server in memory, over real sockets."""

from __future__ import annotations

import copy
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import schemas
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins import tracking as tracking_stand_in
from tests.stand_ins.kubernetes import ApiServer, Fault
from tests.stand_ins.tracking import Tracking
from tests.unit.client.fakes import SPEC, make_plan, wait_for
from tunery import __version__, mirrored
from tunery.cli.app import run
from tunery.client import Client, _rayjob, _remote, _tracked, client_for
from tunery.client import kubernetes as target
from tunery.errors import (
    ConflictError,
    InputError,
    MissingExtraError,
    NotFoundError,
    ProfileError,
    TuneryError,
    UnreachableError,
)
from tunery.home import Home
from tunery.k8s import api, collection, render
from tunery.kube import Kubernetes
from tunery.parcel import Parcel
from tunery.profile import load_profile

PLAN = make_plan()
RUN = PLAN.run_id
CANARY = "a-secret-of-the-tests"


@dataclass
class Place:
    """A cluster, its tracking server, and a laptop that knows them."""

    server: ApiServer
    tracking: Tracking
    folder: Path
    slept: list[float]

    def client(self, **kubernetes: Any) -> Client:
        self.configure(**kubernetes)
        return client_for(load_profile(None, self.home), self.home)

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    def configure(self, *, token: str | None = None, ca: Path | None = None, **kubernetes: object) -> None:
        file = stand_in.kubeconfig(self.server, self.folder / "kubeconfig", token=token, ca=ca)
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in kubernetes.items())
        (self.folder / "config.toml").write_text(
            f'default = "team"\n[profiles.team]\ntarget = "kubernetes"\ntracking_uri = "{self.tracking.url}"\n'
            f'[profiles.team.kubernetes]\nkubeconfig = "{file}"\n{more}'
            '[profiles.team.secrets]\nMLFLOW_TRACKING_PASSWORD = {env = "TEAM_PASSWORD"}\n'
        )

    def jobs(self) -> target.RayJobs:
        profile = load_profile(None, self.home)
        return target.RayJobs(profile, _tracked.Tracked.of(profile, {}))

    def release(self) -> None:
        """The operator lets the only job go."""
        self.server.release(self.job()["metadata"]["name"])

    def job(self) -> dict[str, Any]:
        """The only RayJob there is."""
        (found,) = self.server.jobs().values()
        return found


@pytest.fixture(scope="module")
def template(kubectl: Path) -> dict[str, Any]:
    """What is sent for every run: rendered once, because that takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(kubectl.parent), prepend=":")
        return render.job(Kubernetes())


def strict(manifest: dict[str, Any]) -> list[str]:
    """KubeRay's schemas where they are at hand."""
    return schemas.mistakes(manifest) if manifest["kind"] == "RayJob" and schemas.FOLDER.is_dir() else []


@pytest.fixture
def place(template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(render, "job", lambda _: copy.deepcopy(template))
    monkeypatch.setattr(api, "FIRST_WAITS_S", (0.001,) * 2)
    monkeypatch.setattr(api, "WAITS_S", (0.002,) * 5)
    monkeypatch.setattr(collection, "FRESH_S", 0.0)
    monkeypatch.setattr(_remote, "POLL_S", 0.01)
    monkeypatch.setattr(_tracked, "POLL_S", 0.01)
    monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("TUNERY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TEAM_PASSWORD", CANARY)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    slept: list[float] = []
    monkeypatch.setattr(api, "sleep", slept.append)
    with ExitStack() as stack:
        server = stack.enter_context(stand_in.serving(ApiServer(mistakes=strict)))
        server.add("Namespace", "tunery")
        tracking = stack.enter_context(tracking_stand_in.serving(Tracking()))
        yield Place(server, tracking, tmp_path, slept)


# -- sending ---------------------------------------------------------------------------------------------------


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
    ca, certificate = certificates(tmp_path)
    with stand_in.serving(ApiServer(), certificate) as server:
        place.server = server
        assert place.client(ca=ca).runs() == ()
        with pytest.raises(UnreachableError, match=r"certificate that is not trusted here.*certificate-authority in"):
            place.client().runs()


# -- following -------------------------------------------------------------------------------------------------


def test_a_runs_way(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    assert client.find("glue") == RUN
    assert (client.state(RUN).status, client.state(RUN).phase) == ("starting", "waiting for the cluster")
    place.server.operate(RUN, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert client.state(RUN).phase == "beginning on the cluster"
    assert client.plan(RUN) == PLAN, "before it has told anything its plan is that of the job"
    place.tracking.tell(RUN, RUN, plan=PLAN.model_dump_json().encode(), log="one\ntwo\n", status="running")
    assert client.state(RUN).status == "running"
    assert [state.run_id for state in client.runs()] == [RUN]
    assert list(client.log(RUN)) == ["one", "two"]
    place.tracking.tell(RUN, RUN, status="finished")
    place.server.operate(RUN, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert [state.status for state in client.watch(RUN)] == ["finished"]
    assert client.send(PLAN).outcome == "finished"


@pytest.mark.parametrize(
    ("status", "found", "error"),
    [
        ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed",
          "message": "last logs:\nerror: the plan was sent by tunery 0.1.0, and the cluster has tunery 0.2.0: x\n"},
         "failed", "the plan was sent by tunery 0.1.0, and the cluster has tunery 0.2.0: x"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "failed", "it has taken longer than its"),
        ({"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": "no"}, "failed",
         "KubeRay's operator refuses it: no"),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": ""}, "starting", ""),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped", ""),
    ],
)  # fmt: skip
def test_what_the_operator_says_of_a_job(place: Place, status: dict[str, str], found: str, error: str) -> None:
    client = place.client()
    client.send(PLAN)
    place.server.operate(RUN, **status)
    state = client.state(RUN)
    assert state.status == found
    assert state.error.startswith(error)
    assert f"RayJob {RUN}: {status['jobDeploymentStatus']}" in "\n".join(client.log(RUN))


def test_a_run_is_listed_once_and_then_watched(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    place.server.asked.clear()
    for _ in range(3):
        client.state(RUN)
    assert not [each for each in place.server.asked if each.startswith("GET")]
    first, *_, last = [int(each.split()[1]) for each in place.server.asked]
    assert last >= first, "each watch begins where the one before has ended"
    place.server.add("ConfigMap", "x", namespace="tunery")
    client.state(RUN)
    client.state(RUN)
    assert place.server.asked[-1] == f"WATCH {place.server.version}", "a bookmark has brought what is not ours"


def test_a_watch_that_drops_is_taken_up_where_it_was(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    client.state(RUN)
    place.server.asked.clear()
    place.server.operate(RUN, jobDeploymentStatus="Initializing")
    seen = place.server.version
    place.server.operate(RUN, jobDeploymentStatus="Running", jobStatus="RUNNING")
    place.server.faults = [Fault(watch=True)]
    assert client.state(RUN).phase == "beginning on the cluster"
    assert place.server.asked[1] == f"WATCH {seen}", "after the event that came whole"
    assert not [each for each in place.server.asked if each.startswith("GET")]


def test_a_watch_that_comes_too_late_lists_again(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    client.state(RUN)
    place.server.operate(RUN, jobDeploymentStatus="Running", jobStatus="RUNNING")
    place.server.forget()
    place.server.asked.clear()
    assert client.state(RUN).phase == "beginning on the cluster"
    assert [each.split()[0] for each in place.server.asked] == ["WATCH", "GET"]


def test_jobs_come_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "PAGE", 2)
    for number in range(5):
        place.client().send(make_plan(f"sweep{number}"))
    place.server.asked.clear()
    assert len(place.client().runs()) == 5
    assert len(place.server.asked) == 3


# -- stopping and going on -------------------------------------------------------------------------------------


def test_a_job_that_waits_is_deleted(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    assert client.stop(RUN).status == "stopped"
    place.release()
    with pytest.raises(NotFoundError, match=f"no run '{RUN}'"):
        client.state(RUN)
    assert client.send(PLAN).outcome == "started"


def test_a_job_that_works_is_asked_over_the_tracking_server(place: Place) -> None:
    client = place.client()
    client.send(PLAN)
    place.server.operate(RUN, jobDeploymentStatus="Running", jobStatus="RUNNING")
    place.tracking.tell(RUN, RUN, plan=PLAN.model_dump_json().encode(), status="running")
    ended: list[str] = []
    stopping = threading.Thread(target=lambda: ended.append(client.stop(RUN).status))
    place.server.faults = [Fault(409, method="PATCH")]
    stopping.start()
    with place.server.changed:
        assert place.server.changed.wait_for(lambda: place.job()["spec"]["backoffLimit"] == 0, timeout=60)
    while mirrored.STOP not in place.tracking.entries[RUN].tags:
        assert stopping.is_alive()
    assert place.tracking.entries[RUN].tags[mirrored.STOP] == RUN, "the job that is meant, and no later one"
    place.tracking.tell(RUN, RUN, plan=PLAN.model_dump_json().encode(), status="stopped")
    place.server.operate(RUN, jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    stopping.join(timeout=60)
    assert ended == ["stopped"]
    assert place.job()["metadata"]["annotations"] == {_rayjob.STOP: "true"}

    assert client.send(PLAN).outcome == "ended"
    assert client.resume(RUN).outcome == "resumed"
    again = place.server.jobs()[_rayjob.name_of(f"{RUN}-again-1")]
    assert again["spec"]["metadata"]["tunery.resume"] == "yes"
    assert client.state(RUN).status == "starting", "what was told is of the job before"


def test_one_that_does_not_end_is_deleted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    client = place.client()
    client.send(PLAN)
    place.server.operate(RUN, jobDeploymentStatus="Running", jobStatus="RUNNING")
    place.tracking.tell(RUN, RUN, status="running")
    monkeypatch.setattr(target, "STOP_GRACE_S", 0.05)
    assert client.stop(RUN).status == "stopped"
    assert "deletionTimestamp" in place.job()["metadata"]


def test_a_job_that_the_cluster_has_forgotten_goes_on_under_another_name(place: Place) -> None:
    place.tracking.tell(RUN, RUN, plan=PLAN.model_dump_json().encode(), status="running")
    client = place.client()
    assert client.state(RUN).status == "interrupted"
    assert client.send(PLAN).outcome == "resumed"
    assert place.job()["spec"]["jobId"] == f"{RUN}-again-1"


def certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and a server's with its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    ca, both = folder / "ca.pem", folder / "server.pem"
    text = made.public_bytes(serialization.Encoding.PEM)
    ca.write_bytes(text)
    plain = serialization.NoEncryption()
    both.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain) + text)
    return ca, both
