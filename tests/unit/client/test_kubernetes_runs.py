"""Runs on Kubernetes that are followed, stopped and gone on with; against servers in memory, over real sockets."""

from __future__ import annotations

import threading

import pytest

from tests.stand_ins.kubernetes import Fault
from tests.unit.client.fakes import make_plan
from tests.unit.client.on_kubernetes import PLAN, RUN, Place
from tunery import mirrored
from tunery.client import _rayjob
from tunery.client import kubernetes as target
from tunery.errors import (
    NotFoundError,
)
from tunery.k8s import collection


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


@pytest.mark.parametrize("attempt", [{"jobDeploymentStatus": "Retrying", "jobStatus": ""},
                                     {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}])  # fmt: skip
def test_a_failed_run_that_goes_on_is_not_tried_by_its_old_job_too(place: Place, attempt: dict[str, str]) -> None:
    client = place.client()
    client.send(PLAN)
    client.send(make_plan("other"))
    place.tracking.tell(RUN, RUN, plan=PLAN.model_dump_json().encode(), status="failed")
    place.server.operate(RUN, **attempt)
    assert client.state(RUN).status == "failed"
    assert client.resume(RUN).outcome == "resumed"
    going = {name for name, job in place.server.jobs().items() if "deletionTimestamp" not in job["metadata"]}
    assert going == {f"{RUN}-again-1", make_plan("other").run_id}
    assert client.state(RUN).status == "starting"
