"""`platform k8s`, with kubectl and against an API server in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import schemas
from tests.deploy.rules import RULES, pods
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins import kubernetes_http
from tests.stand_ins import tracking as tracking_stand_in
from tests.stand_ins.kubernetes import ApiServer
from tests.stand_ins.tracking import Tracking
from tunery.cli.app import run
from tunery.client import _rayjob
from tunery.errors import MissingExtraError, ProfileError
from tunery.k8s import api, needs, render
from tunery.kube import Image, Kubernetes
from tunery.parcel import Parcel

DIGEST = "sha256:" + 64 * "a"
VALUES = Kubernetes(
    namespace="team-a", image=f"r.example.org:5000/tunery:0.1.0@{DIGEST}", gpu_image=f"r.example.org/gpu@{DIGEST}",
    storage_class="ssd", shared_storage_class="nfs", artifacts="s3://bucket/x", s3_endpoint="https://s3.example.org",
    hosts=["mlflow.example.org"], gpus=3, components=["monitoring"],
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("kubectl_on_path")


@pytest.fixture(scope="module")
def rendered(kubectl: Path) -> Callable[[Kubernetes], list[dict[str, Any]]]:
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


Rendered = Callable[[Kubernetes], list[dict[str, Any]]]


def test_the_values_are_in_what_is_rendered(rendered: Rendered) -> None:
    objects = rendered(VALUES)
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert by_name["Namespace", "team-a"]
    for each in objects:
        cluster_wide = {"Namespace", "PriorityClass", "ClusterQueue", "ResourceFlavor"}
        own = None if each["kind"] in cluster_wide else "team-a"
        assert each["metadata"].get("namespace") == own, each["kind"]
    images = {
        one["image"] for pod in needs.pods(objects) for one in pod["containers"] if "postgres" not in one["image"]
    }
    assert images == {f"r.example.org:5000/tunery@{DIGEST}", f"r.example.org/gpu@{DIGEST}"}
    assert list(pods.every_image_is_pinned(objects)) == []
    allowed = next(
        one["value"]
        for one in by_name["Deployment", "mlflow"]["spec"]["template"]["spec"]["containers"][0]["env"]
        if one["name"] == "ALLOWED_HOSTS"
    )
    assert "mlflow.team-a.svc:5000" in allowed
    assert allowed.endswith(",mlflow.example.org")
    assert by_name["ConfigMap", "mlflow"]["data"]["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://bucket/x"
    assert by_name["ConfigMap", "mlflow"]["data"]["MLFLOW_S3_ENDPOINT_URL"] == "https://s3.example.org"
    assert by_name["PersistentVolumeClaim", "tunery"]["spec"]["storageClassName"] == "nfs"
    claim = by_name["StatefulSet", "postgres"]["spec"]["volumeClaimTemplates"][0]
    assert claim["spec"]["storageClassName"] == "ssd"
    group = by_name["RayJob", "tunery"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 3), "what is queued is whole"
    selector = by_name["ClusterQueue", "tunery"]["spec"]["namespaceSelector"]["matchLabels"]
    assert selector == {"kubernetes.io/metadata.name": "team-a"}


def test_the_rules_hold_of_it(rendered: Rendered) -> None:
    here = VALUES.model_copy(update={"namespace": "tunery"})
    for settings in (here, here.model_copy(update={"overlay": "gpu", "components": ()})):
        objects = rendered(settings)
        for rule in RULES:
            assert list(rule(objects)) == [], rule.__name__


@pytest.mark.parametrize("overlay", ["gpu-kueue", "gpu"])
def test_what_a_sweep_is_sent_as_keeps_the_rules_and_the_schema(
    overlay: str, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered(Kubernetes(overlay=overlay))
    monkeypatch.setattr(render, "render", lambda *_, **__: objects)
    made = _rayjob.made(Kubernetes(overlay=overlay), "glue-01234567", Parcel("glue-01234567", b"{}", "0.1.0"))
    whole = [made if each["kind"] == "RayJob" else each for each in objects]
    for rule in RULES:
        assert list(rule(whole)) == [], rule.__name__
    if schemas.FOLDER.is_dir():
        assert schemas.mistakes(made) == []


def test_an_overlay_of_ones_own(tmp_path: Path) -> None:
    at = "/spec/rayClusterSpec/workerGroupSpecs/1/template/spec/nodeSelector/spot"
    content = {
        "resources": [os.path.relpath(render.shipped().resolve() / "overlays" / "gpu-kueue", tmp_path.resolve())],
        "patches": [
            {"target": {"kind": "RayJob"}, "patch": yaml.safe_dump([{"op": "add", "path": at, "value": "true"}])}
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    made = render.job(Kubernetes(overlay=str(tmp_path)))
    group = made["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    assert group["template"]["spec"]["nodeSelector"]["spot"] == "true"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Kubernetes(overlay="gup"), r"overlay 'gup': no kustomization in .*; known: dev, gpu, gpu-kueue, serve, or a"),
        (Kubernetes(overlay="/no/such"), r"overlay '/no/such': no kustomization in /no/such$"),
        (Kubernetes(components=["x"]), "component 'x': not in deploy/k8s/components; known: external-postgres, job"),
        (Kubernetes(overlay="dev", gpus=2), "kustomize cannot make what the profile says of the overlay"),
    ],
)
def test_a_mistake_in_the_profile_is_named(settings: Kubernetes, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        render.render(settings)


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match="kubectl is not on the PATH"):
        render.render(Kubernetes())


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("tunery", "tunery", None, None),
        ("tunery:0.1.0", "tunery", "0.1.0", None),
        ("localhost:5000/a/tunery", "localhost:5000/a/tunery", None, None),
        (f"r.example.org:5000/tunery:0.1@{DIGEST}", "r.example.org:5000/tunery", "0.1", DIGEST),
    ],
)
def test_an_images_name(text: str, name: str, tag: str | None, digest: str | None) -> None:
    assert Image.of(text) == Image(name=name, tag=tag, digest=digest)


# -- apply and doctor ------------------------------------------------------------------------------------------


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
            kubernetes_http.serving(ApiServer(kinds={**stand_in.CORE, **stand_in.RAY, **stand_in.KUEUE}))
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


def test_applying_again_changes_nothing_and_what_others_have_set_is_named(
    cluster: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = document(capsys, "apply", "--dry-run")["applied"]
    assert ("/apis/apps/v1/deployments", "tunery", "mlflow") not in cluster.objects
    first = document(capsys, "apply")["applied"]
    assert tried == first
    assert {each["outcome"] for each in first} == {"created"}
    assert "RayJob/tunery" not in {each["name"] for each in first}
    assert {each["outcome"] for each in document(capsys, "apply")["applied"]} == {"unchanged"}

    key = ("/apis/apps/v1/deployments", "tunery", "mlflow")
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mlflow"}, "spec": {"replicas": 3}}
    cluster.apply(key, other, manager="kubectl", force=True)
    error = document(capsys, "apply", code=4)["error"]
    assert 'Deployment/mlflow: .spec.replicas (conflict with "kubectl")' in error["message"]
    assert "--force" in error["message"]
    assert cluster.objects[key]["spec"]["replicas"] == 3
    forced = {each["name"]: each["outcome"] for each in document(capsys, "apply", "--force")["applied"]}
    assert forced["Deployment/mlflow"] == "changed"
    assert cluster.objects[key]["spec"]["replicas"] == 1
    assert all("fieldManager=tunery" in each for each in cluster.asked if each.startswith("PATCH"))


def test_what_the_server_does_not_have_is_named_and_the_rest_applied(
    cluster: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.kinds = {**stand_in.CORE, **stand_in.RAY}
    message = document(capsys, "apply", code=2)["error"]["message"]
    assert "LocalQueue/tunery: the API server has no such kind of kueue.x-k8s.io/v1beta2: install Kueue" in message
    assert ("/apis/apps/v1/deployments", "tunery", "mlflow") in cluster.objects


def test_rendered_as_yaml(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert documents == document(capsys, "render")["objects"]
    assert cluster.asked == []


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
    for key, each in list(cluster.objects.items()):
        if each["kind"] in ("Deployment", "StatefulSet"):
            cluster._store(key, {**each, "status": {"readyReplicas": 1, "availableReplicas": 1}}, "MODIFIED")
        if each["kind"] == "LocalQueue":
            active = {"conditions": [{"type": "Active", "status": "True"}]}
            cluster._store(key, {**each, "status": active}, "MODIFIED")
    well = document(capsys, "doctor")
    assert [each for each in well["checks"] if not each["ok"]] == []


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
    cluster.add("Node", "n1", status={"allocatable": {"nvidia.com/gpu": "8"}})
    default = cluster.add("StorageClass", "standard")
    default["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    for name, keys in needs.secrets(objects).items():
        cluster.add("Secret", name, namespace="tunery", data=dict.fromkeys(keys, "eA=="))


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


@pytest.mark.usefixtures("cluster")
def test_another_target_and_foreign_options_are_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    message = document(capsys, "render", "--profile", "local", code=2)["error"]["message"]
    assert "profile 'local' has target 'local': expected 'kubernetes'" in message
    assert "belong to apply" in document(capsys, "render", "--force", code=2)["error"]["message"]
