"""`platform k8s doctor`, against an API server in memory: every fault by itself is told, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_ports
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins.kubernetes import ApiServer
from tests.unit.cli.on_kubernetes import Rendered, change, document, fill, settle
from tunery.client import _http
from tunery.kube import Kubernetes

pytestmark = pytest.mark.usefixtures("kubectl_on_path")

OPERATOR = ("/apis/apps/v1/deployments", "kuberay-system", "kuberay-operator")
DEFINITION = ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "", "rayjobs.ray.io")
LOCAL_QUEUE = ("/apis/kueue.x-k8s.io/v1beta2/localqueues", "tunery", "tunery")
CLUSTER_QUEUE = ("/apis/kueue.x-k8s.io/v1beta2/clusterqueues", "", "tunery")
NODE = ("/api/v1/nodes", "", "n1")
CLASS = ("/apis/storage.k8s.io/v1/storageclasses", "", "standard")
NAMESPACE = ("/api/v1/namespaces", "", "tunery")
CLOSED = {"conditions": [{"type": "Active", "status": "False", "message": "flavors are missing"}]}


def test_the_doctor_of_an_empty_cluster_says_what_to_do_and_of_a_full_one_that_all_is_well(
    cluster: ApiServer, rendered: Rendered, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = document(capsys, "doctor", code=6)
    assert not empty["ok"]
    found = {each["name"]: each for each in empty["checks"]}
    bad = {name for name, each in found.items() if not each["ok"]}
    assert bad == {
        "namespace", "KubeRay's definitions", "KubeRay's operator", "queue", "GPUs", "storage", "secrets", "services",
    }  # fmt: skip
    assert all(found[name]["todo"] for name in bad)
    assert "ray-token (auth_token)" in found["secrets"]["detail"]

    fill(cluster, rendered(Kubernetes()))
    document(capsys, "apply")
    settle(cluster)
    well = document(capsys, "doctor")
    assert [each for each in well["checks"] if not each["ok"]] == []


@pytest.fixture
def full(cluster: ApiServer, rendered: Rendered, capsys: pytest.CaptureFixture[str]) -> ApiServer:
    """A cluster on which all is well."""
    fill(cluster, rendered(Kubernetes()))
    document(capsys, "apply")
    settle(cluster)
    return cluster


def _lacks(field: str) -> Callable[[ApiServer], None]:
    def fault(server: ApiServer) -> None:
        schema = server.objects[DEFINITION]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        del schema["properties"]["spec"]["properties"][field]

    return fault


def _quota(server: ApiServer) -> None:
    groups = server.objects[CLUSTER_QUEUE]["spec"]["resourceGroups"]
    groups[1]["flavors"][0]["resources"][0]["nominalQuota"] = 0


def _without_kueue(server: ApiServer) -> None:
    server.kinds = {**stand_in.CORE, **stand_in.RAY}


def _elsewhere(server: ApiServer) -> None:
    found = server.objects.pop(OPERATOR)
    key = (OPERATOR[0], "operators", OPERATOR[2])
    server._store(key, stand_in.merged(found, {"metadata": {"namespace": "operators"}}), "ADDED")


@pytest.mark.parametrize(
    ("fault", "name", "detail", "todo"),
    [
        (
            lambda s: change(s, OPERATOR, status={"availableReplicas": 0}),
            "KubeRay's operator",
            "no pod is available",
            "kubectl -n kuberay-system describe deployment kuberay-operator",
        ),
        (_elsewhere, "KubeRay's operator", "in operators", "patch it to operators in your overlay"),
        (lambda s: s.objects.pop(OPERATOR), "KubeRay's operator", "there is none", "install KubeRay 1.7"),
        (_lacks("jobId"), "KubeRay's definitions", "lacks spec.jobId", "install KubeRay 1.7 or later"),
        (lambda s: s.objects.pop(DEFINITION), "KubeRay's definitions", "is not there", "by server-side apply"),
        (
            lambda s: s.objects[DEFINITION]["spec"]["versions"][0].update(name="v1alpha1"),
            "KubeRay's definitions",
            "rayjobs.ray.io has v1alpha1",
            "install KubeRay 1.7 or later",
        ),
        (_without_kueue, "queue", "no kueue.x-k8s.io/v1beta2 here", "or take the overlay gpu"),
        (lambda s: s.objects.pop(LOCAL_QUEUE), "queue", "LocalQueue tunery is not there", "platform k8s apply"),
        (lambda s: s.objects.pop(CLUSTER_QUEUE), "queue", "ClusterQueue tunery, which is not there", "apply, or have"),
        (
            lambda s: change(s, LOCAL_QUEUE, status=CLOSED),
            "queue",
            "LocalQueue tunery: flavors are missing",
            "kubectl describe clusterqueue tunery",
        ),
        (
            lambda s: change(s, CLUSTER_QUEUE, status=CLOSED),
            "queue",
            "ClusterQueue tunery: flavors are missing",
            "kubectl describe clusterqueue tunery",
        ),
        (_quota, "queue", "takes 1 nvidia.com/gpu, and ClusterQueue/tunery has 0", "lower gpus in the profile"),
        (
            lambda s: change(s, NODE, status={"allocatable": {"nvidia.com/gpu": "0"}}),
            "GPUs",
            "0 on 0 of 1 nodes, by their labels; a sweep takes up to 1",
            "or lower gpus in the profile",
        ),
        (
            lambda s: change(s, NODE, metadata={"labels": {"nvidia.com/gpu.present": None}}),
            "GPUs",
            "0 on 0 of 1 nodes",
            "the label nvidia.com/gpu.present=true",
        ),
        (lambda s: s.objects.pop(CLASS), "storage", "there is no default; known: none", "name one as storage_class"),
        (
            lambda s: s.objects["/api/v1/secrets", "tunery", "mlflow-client"]["data"].pop("password"),
            "secrets",
            "missing: mlflow-client (password)",
            "kubectl -n tunery create secret generic",
        ),
        (
            lambda s: s.objects.pop(("/api/v1/secrets", "tunery", "s3")),
            "secrets",
            "missing: s3 (whole)",
            "deploy/README.md lists them",
        ),
        (
            lambda s: change(s, ("/apis/apps/v1/deployments", "tunery", "mlflow"), status={"readyReplicas": 0}),
            "services",
            "mlflow has no pod that is ready",
            "kubectl describe of the pod",
        ),
        (
            lambda s: change(s, NAMESPACE, metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}),
            "namespace",
            "Pod Security baseline",
            "platform k8s apply sets",
        ),
    ],
)
def test_one_fault_is_told_with_what_to_do_and_nothing_else_is(
    full: ApiServer,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[ApiServer], Any],
    name: str,
    detail: str,
    todo: str,
) -> None:
    fault(full)
    (bad,) = _unwell(capsys, code=0 if name in ("GPUs", "namespace") else 6)
    assert bad["name"] == name
    assert detail in bad["detail"]
    assert todo in bad["todo"]


def _unwell(capsys: pytest.CaptureFixture[str], *, code: int) -> list[dict[str, Any]]:
    return [each for each in document(capsys, "doctor", code=code)["checks"] if not each["ok"]]


@pytest.mark.usefixtures("full")
def test_mlflow_that_does_not_answer_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "FIRST_WAITS_S", ())
    (port,) = free_ports(1)
    file = tmp_path / "config.toml"
    file.write_text(re.sub(r"tracking_uri = .*", f'tracking_uri = "http://127.0.0.1:{port}"', file.read_text()))
    (bad,) = _unwell(capsys, code=6)
    assert bad["name"] == "tracking (MLflow)"
    assert f"MLflow at http://127.0.0.1:{port} does not answer" in bad["detail"]
    assert "the profile's tracking_uri, ca and secrets" in bad["todo"]


@pytest.mark.usefixtures("full")
def test_a_secret_of_the_profile_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_PASSWORD", raising=False)
    with (tmp_path / "config.toml").open("a") as file:
        file.write('[profiles.k.secrets]\nMLFLOW_TRACKING_PASSWORD = {env = "TEAM_PASSWORD"}\n')
    (bad,) = _unwell(capsys, code=2)
    assert "TEAM_PASSWORD, which the profile names, is not set" in bad["detail"]
    assert "secrets" in bad["todo"]


@pytest.mark.parametrize(
    ("spoil", "name", "todo"),
    [
        (lambda s: s.forbidden.add("create rayjobs"), "rights", "bind the user to the Role tunery-submitter"),
        (lambda s: s.forbidden.add("list nodes"), "GPUs", "have it looked at by who may"),
        (lambda s: setattr(s, "token", "another"), "rights", ""),
    ],
)
def test_what_one_may_not_do_or_see(
    cluster: ApiServer, capsys: pytest.CaptureFixture[str], spoil: Callable[[ApiServer], None], name: str, todo: str
) -> None:
    spoil(cluster)
    found = {each["name"]: each for each in document(capsys, "doctor", code=2 if not todo else 6)["checks"]}
    if not todo:
        assert "HTTP 401" in found["profile k"]["detail"]
        return
    assert not found[name]["ok"]
    assert todo in found[name]["todo"]
