"""`platform k8s`, with kubectl and against an API server in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import schemas
from tests.deploy.rules import RULES, pods
from tests.stand_ins import kubernetes as stand_in
from tests.stand_ins.kubernetes import ApiServer
from tests.unit.cli.on_kubernetes import Rendered, document
from tunery.cli.app import run
from tunery.client import _rayjob
from tunery.errors import MissingExtraError, ProfileError
from tunery.home import Home
from tunery.k8s import needs, render
from tunery.kube import Image, Kubernetes
from tunery.parcel import Parcel
from tunery.profile import load_profile

DIGEST = "sha256:" + 64 * "a"
VALUES = Kubernetes(
    namespace="team-a", image=f"r.example.org:5000/tunery:0.1.0@{DIGEST}", gpu_image=f"r.example.org/gpu@{DIGEST}",
    storage_class="ssd", shared_storage_class="nfs", artifacts="s3://bucket/x", s3_endpoint="https://s3.example.org",
    hosts=["mlflow.example.org"], gpus=3, components=["monitoring"],
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("kubectl_on_path")


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


def test_checkpoints_go_to_the_profiles_store(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Kubernetes(store="s3://bucket/runs", s3_endpoint="https://s3.example.org")
    objects = rendered(settings)
    for rule in RULES:
        assert list(rule(objects)) == [], rule.__name__
    assert needs.secrets(objects)["store"] == {"credentials"}
    assert "store" not in needs.secrets(rendered(Kubernetes()))
    (config,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", "tunery"))
    (tmp_path / "config.toml").write_text(config["data"]["config.toml"])
    monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
    found = load_profile("cluster", Home(tmp_path))
    assert (found.store, found.s3.endpoint) == ("s3://bucket/runs", "https://s3.example.org")
    assert found.secrets.keys() == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"}


def test_a_store_that_the_pods_have_already_is_not_said_twice(tmp_path: Path) -> None:
    base = render.shipped().resolve()
    (tmp_path / "config.toml").write_text('[profiles.cluster]\nstore = "s3://theirs/runs"\n')
    config = {"name": "tunery", "namespace": "tunery", "behavior": "merge", "files": ["config.toml"]}
    content = {
        "resources": [os.path.relpath(base / "overlays" / "gpu-kueue", tmp_path.resolve())],
        "configMapGenerator": [{**config, "options": {"disableNameSuffixHash": True}}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProfileError, match="name the store there, and not in the profile"):
        render.render(Kubernetes(overlay=str(tmp_path), store="s3://bucket/runs"))


def test_alerts_and_the_dashboard_ask_for_the_metrics_of_the_namespace(rendered: Rendered) -> None:
    asking = [
        each
        for each in rendered(VALUES)
        if each["kind"] == "PrometheusRule" or each["metadata"]["name"] == "tunery-dashboard"
    ]
    assert len(asking) == 2
    for each in asking:
        text = json.dumps(each).replace("\\", "")
        assert 'namespace="team-a"' in text
        assert 'namespace="tunery"' not in text


def test_the_dashboards_of_two_namespaces_stand_side_by_side(rendered: Rendered) -> None:
    def board(values: Kubernetes) -> tuple[str, dict[str, Any]]:
        (found,) = (each["data"] for each in rendered(values) if each["metadata"]["name"] == "tunery-dashboard")
        ((file, text),) = found.items()
        return file, json.loads(text)

    boards = [board(VALUES.model_copy(update={"namespace": each})) for each in ("tunery", "team-a", "team-b")]
    assert [file for file, _ in boards] == ["tunery.json", "tunery-team-a.json", "tunery-team-b.json"]
    assert [each["title"] for _, each in boards] == ["tunery", "tunery, team-a", "tunery, team-b"]
    assert len({each["uid"] for _, each in boards}) == 3
    assert boards[0][1]["panels"]


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
        (
            Kubernetes(gpus=5),
            "^a sweep takes 5 nvidia.com/gpu, and ClusterQueue/tunery has 4: no sweep would ever start. "
            "Name fewer gpus in the profile, or raise the quota in an overlay of your own",
        ),
        (Kubernetes(gpus=9), "takes 78 cpu, .* takes 9 nvidia.com/gpu, and ResourceQuota/tunery in requests has 8"),
    ],
)
def test_a_mistake_in_the_profile_is_named(settings: Kubernetes, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        render.render(settings)


def test_as_many_gpus_as_the_queue_has_are_rendered(rendered: Rendered) -> None:
    assert needs.gpus_asked(rendered(Kubernetes(gpus=4))) == 4


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


# -- apply -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("kind", "path", "typo"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "imagePullPolice"), "Always"),
        pytest.param(
            "RayCluster", ("spec", "autoscalerOptions", "idleTimeout"), 60,
            marks=pytest.mark.skipif(not schemas.FOLDER.is_dir(), reason=schemas.MISSING),
        ),
    ],
)  # fmt: skip
def test_a_typo_is_refused_and_the_rest_applied(
    cluster: ApiServer,
    rendered: Rendered,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    path: tuple[str | int, ...],
    typo: object,
) -> None:
    objects = rendered(Kubernetes(overlay="gpu"))
    at: Any = next(each for each in objects if each["kind"] == kind)
    *parts, last = path
    for part in parts:
        at = at[part]
    at[last] = typo
    monkeypatch.setattr(render, "render", lambda _: objects)
    message = document(capsys, "apply", code=2)["error"]["message"]
    assert str(last) in message
    assert message.count("\n") == 1, "nothing else is refused"
    assert ("/api/v1/configmaps", "tunery", "mlflow") in cluster.objects


def test_rendered_as_yaml(cluster: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert documents == document(capsys, "render")["objects"]
    assert cluster.asked == []


@pytest.mark.usefixtures("cluster")
def test_another_target_and_foreign_options_are_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    message = document(capsys, "render", "--profile", "local", code=2)["error"]["message"]
    assert "profile 'local' has target 'local': expected 'kubernetes'" in message
    assert "belong to apply" in document(capsys, "render", "--force", code=2)["error"]["message"]
