"""The Role `tunery-submitter` of deploy/k8s: enough for all that a client does to a run, and nothing to spare."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.fakes import make_plan, wait_for
from tests.unit.client.on_kubernetes import PLAN, RUN, Place
from tunery.errors import ProfileError
from tunery.k8s import render
from tunery.kube import Kubernetes

VERBS = ("create", "delete", "get", "list", "patch", "watch")


@pytest.fixture(scope="module")
def role(kubectl: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(kubectl.parent), prepend=":")
        objects = render.render(Kubernetes())
    (found,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == ("Role", "tunery-submitter")]
    return found


def all_that_a_client_does(place: Place) -> None:
    """Each step by a client of its own, as commands are: what one has seen the next one asks for again."""
    first = place.client()
    assert first.send(PLAN).outcome == "started"
    assert place.configured().send(PLAN).outcome == "attached"
    jobs = place.jobs()
    (job,) = jobs.all()
    assert jobs.parcel(job).run == RUN
    assert jobs.output(job)
    with place.at_work() as work:
        wait_for(lambda: first.state(RUN).status == "running")
        assert place.configured().find("glue") == RUN
        assert [state.run_id for state in place.configured().runs()] == [RUN]
        assert next(iter(place.configured().log(RUN)))
        assert place.configured().stop(RUN).status == "stopped"
        assert place.configured().resume(RUN).outcome == "resumed"
        work.ends[RUN] = "finished"
        assert [state.status for state in place.configured().watch(RUN)][-1] == "finished"
    waiting = make_plan("other")
    place.configured().send(waiting)
    assert place.configured().stop(waiting.run_id).status == "stopped"


def test_it_is_enough(place: Place, role: dict[str, Any]) -> None:
    place.server.role = role
    all_that_a_client_does(place)


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_of_it_is_to_spare(verb: str, place: Place, role: dict[str, Any]) -> None:
    less = copy.deepcopy(role)
    (rule,) = less["rules"]
    assert sorted(rule["verbs"]) == list(VERBS)
    rule["verbs"].remove(verb)
    place.server.role = less
    with pytest.raises(ProfileError, match=rf'cannot {verb} resource "rayjobs"'):
        all_that_a_client_does(place)


def test_it_is_for_one_namespace(place: Place, role: dict[str, Any]) -> None:
    place.server.role = role
    place.server.add("Namespace", "elsewhere")
    with pytest.raises(ProfileError, match='in the namespace "elsewhere"'):
        place.client(namespace="elsewhere").send(PLAN)
