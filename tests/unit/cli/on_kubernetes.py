"""A cluster in memory that `platform k8s` is pointed at, and what is rendered for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import schemas
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins import kubernetes_http
from tests.stand_ins import tracking as tracking_stand_in
from tests.stand_ins.kubernetes import ApiServer
from tests.stand_ins.tracking import Tracking
from tunery.cli.app import run
from tunery.k8s import api, needs, render
from tunery.kube import Kubernetes

Rendered = Callable[[Kubernetes], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def rendered(kubectl: Path) -> Rendered:
    """Each once: kubectl takes a while."""
    kept: dict[str, str] = {}

    def objects(settings: Kubernetes) -> list[dict[str, Any]]:
        key = settings.model_dump_json()
        if key not in kept:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PATH", str(kubectl.parent), prepend=":")
                kept[key] = json.dumps(render.render(settings, with_job=True))
        found: list[dict[str, Any]] = json.loads(kept[key])
        return found

    return objects


@pytest.fixture
def cluster(rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    objects = rendered(Kubernetes())

    def objects_of(_: Kubernetes, *, with_job: bool = False) -> list[dict[str, Any]]:
        return [each for each in json.loads(json.dumps(objects)) if with_job or each["kind"] != "RayJob"]

    monkeypatch.setattr(render, "render", objects_of)
    monkeypatch.setattr("tunery.cli._cluster_checks.render", objects_of)
    monkeypatch.setattr(api, "sleep", lambda _: None)
    with ExitStack() as stack:
        tracking = stack.enter_context(tracking_stand_in.serving(Tracking()))
        server = stack.enter_context(
            kubernetes_http.serving(
                ApiServer(kinds={**stand_in.CORE, **stand_in.RAY, **stand_in.KUEUE}, mistakes=schemas.of_any)
            )
        )
        file = kubernetes_http.kubeconfig(server, tmp_path / "kubeconfig")
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config.toml").write_text(
            f'default = "k"\n[profiles.k]\ntarget = "kubernetes"\ntracking_uri = "{tracking.url}"\n'
            f'[profiles.k.kubernetes]\nkubeconfig = "{file}"\n'
        )
        monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
        yield server


def document(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["k8s", *words, "-o", "json"]) == code, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def fill(cluster: ApiServer, objects: list[dict[str, Any]]) -> None:
    """What the docs say a cluster has before anything is applied."""
    cluster.add("Namespace", "tunery")
    fields: dict[str, Any] = {"properties": {}}
    for path in needs.USED:
        at = fields
        for name in path:
            at = at.setdefault("properties", {}).setdefault(name, {})
    version = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": fields}}
    cluster.add("CustomResourceDefinition", "rayjobs.ray.io", spec={"versions": [version]})
    labels = {"app.kubernetes.io/name": "kuberay-operator"}
    template = {"spec": {"containers": [{"name": "o", "image": "quay.io/kuberay/operator:v1.7.0"}]}}
    made = cluster.add("Deployment", "kuberay-operator", namespace="kuberay-system", spec={"template": template})
    made["metadata"]["labels"] = labels
    node = cluster.add("Node", "n1", status={"allocatable": {"nvidia.com/gpu": "8"}})
    node["metadata"]["labels"] = {"nvidia.com/gpu.present": "true"}
    default = cluster.add("StorageClass", "standard")
    default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name, keys in needs.secrets(objects).items():
        cluster.add("Secret", name, namespace="tunery", data=dict.fromkeys(keys, "eA=="))


def settle(cluster: ApiServer) -> None:
    """As controllers do after an apply: every workload is up, and the queues are open."""
    for key, each in list(cluster.objects.items()):
        status: dict[str, Any] = {"readyReplicas": 1, "availableReplicas": 1}
        if each["kind"] in ("LocalQueue", "ClusterQueue"):
            status = {"conditions": [{"type": "Active", "status": "True"}]}
        elif each["kind"] not in ("Deployment", "StatefulSet"):
            continue
        change(cluster, key, status=status)


def change(cluster: ApiServer, key: stand_in.Key, **content: Any) -> None:
    """What somebody else does to an object."""
    cluster._store(key, stand_in.merged(cluster.objects[key], content), "MODIFIED")
