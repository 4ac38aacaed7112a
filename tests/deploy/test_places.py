"""What is said of secrets and profiles where a program or a person reads it is what the pods have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import DOCUMENTED, K8S, PLACES, ROOT
from tests.deploy.manifests import Manifest, Pod, name, of_kind, pods
from tests.deploy.rules import kuberay
from tunery.home import Home
from tunery.profile import load_profile

Places = Callable[[str], list[Manifest]]


@pytest.mark.parametrize("place", PLACES)
def test_every_secret_is_in_the_readme_with_its_keys(place: str, places: Places) -> None:
    commands = (ROOT / "deploy" / "README.md").read_text().replace("\\\n", " ")
    made = {
        secret: set(re.findall(r"--from-(?:literal|file)=([\w-]+)=", rest))
        for secret, rest in re.findall(r"kubectl .*create secret generic ([\w-]+)(.*)", commands)
    }
    manifests = places(place)
    for pod in pods(manifests):
        for secret, keys in _secrets(pod):
            assert secret in made
            assert keys <= made[secret]
    for cluster in of_kind(manifests, "RayCluster"):
        assert made[cluster["spec"]["authOptions"]["secretName"]] == {"auth_token"}


def _secrets(pod: Pod) -> Iterator[tuple[str, set[str]]]:
    """Those that a pod takes, with the keys that it names."""
    for volume in pod.spec.get("volumes", ()):
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if secret := source.get("secret"):
                yield secret.get("secretName") or secret["name"], {item["key"] for item in secret.get("items", ())}
    for container in pod.containers:
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield reference["name"], {reference["key"]}


@pytest.mark.parametrize(
    ("profile", "place", "owner"),
    [
        ("cluster", "gpu", "RayCluster/tunery head"),
        # What a task on another node needs, its process finds there.
        ("cluster", "gpu", "RayCluster/tunery cpu"),
        ("cluster", "gpu-kueue", "RayJob/tunery head"),
        ("cluster", "gpu-kueue", "RayJob/tunery gpu"),
        ("serving", "serve", "Deployment/serve"),
    ],
)
def test_the_profile_is_one_whose_files_the_pod_has(
    profile: str, place: str, owner: str, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNERY_CONFIG", str(K8S / "base" / "services" / "config.toml"))
    found = load_profile(profile, Home(Path("/var/lib/tunery")))
    (pod,) = (each for each in pods(places(place)) if each.owner == owner)
    volumes = {volume["name"]: volume for volume in pod.spec["volumes"]}
    container = pod.spec["containers"][0]
    at = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    there = {
        item["path"]
        for source in at["/run/secrets/tunery"]["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert {secret.file for secret in found.secrets.values()} <= {f"/run/secrets/tunery/{path}" for path in there}
    assert {"name": "TUNERY_CONFIG", "value": "/etc/tunery/config.toml"} in container["env"]
    assert at["/etc/tunery"]["configMap"]["name"] == "tunery"
    assert "/var/lib/tunery" in at


def test_the_documents_show_these_kustomizations() -> None:
    assert {*DOCUMENTED} == {
        "a-place-of-your-own", "the-profile-of-the-pods", "sizing", "spot-nodes", "several-teams"
    }  # fmt: skip


def test_a_team_has_no_queue_of_the_whole_cluster_and_waits_in_its_own(places: Places) -> None:
    manifests = places("several-teams")
    assert of_kind(manifests, "ClusterQueue", "ResourceFlavor") == []
    (queue,) = of_kind(manifests, "LocalQueue")
    assert queue["spec"]["clusterQueue"] == "team-a"


def test_gpu_workers_alone_go_to_spot_nodes(places: Places) -> None:
    spot = {
        pod.owner
        for pod in pods(places("spot-nodes"))
        if any(each.get("key") == "your.cloud/spot" for each in pod.spec.get("tolerations", ()))
    }
    assert spot == {"RayJob/tunery gpu"}


def test_a_sweep_of_sixteen_gpus_fits_into_the_quotas_that_are_shown(places: Places) -> None:
    manifests = places("sizing")
    (job,) = of_kind(manifests, "RayJob")
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][1]
    for gpus, fits in ((16, True), (17, False)):
        group["maxReplicas"] = gpus
        assert (list(kuberay.jobs_fit(manifests)) == []) is fits


@pytest.mark.parametrize("place", ["gpu", "gpu-kueue"])
def test_rays_pods_have_the_key_of_a_store_where_there_is_one(place: str, places: Places) -> None:
    of_ray = [pod for pod in pods(places(place)) if "ray.io/is-ray-node" in pod.labels]
    assert len(of_ray) == 3
    for pod in of_ray:
        container, volumes = pod.spec["containers"][0], {each["name"]: each for each in pod.spec["volumes"]}
        (file,) = (each["value"] for each in container["env"] if each["name"] == "AWS_SHARED_CREDENTIALS_FILE")
        (at,) = (each for each in container["volumeMounts"] if each["mountPath"] == str(Path(file).parent))
        sources = [source["secret"] for source in volumes[at["name"]]["projected"]["sources"]]
        (store,) = (each for each in sources if each["name"] == "store")
        assert store["items"] == [{"key": "credentials", "path": Path(file).name}]
        assert store["optional"]


def test_a_place_names_the_store_in_a_profile_of_its_own(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config,) = (each for each in places("the-profile-of-the-pods") if name(each) == "ConfigMap/tunery")
    (tmp_path / "config.toml").write_text(config["data"]["config.toml"])
    monkeypatch.setenv("TUNERY_CONFIG", str(tmp_path / "config.toml"))
    assert load_profile("cluster", Home(tmp_path)).store == "s3://your-bucket/runs"


def test_serving_starts_a_ray_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNERY_CONFIG", str(K8S / "base" / "services" / "config.toml"))
    assert load_profile("serving", Home(Path("/x"))).ray is None
    assert load_profile(None, Home(Path("/x"))).name == "cluster"


@pytest.mark.parametrize("place", PLACES)
def test_a_pod_that_needs_a_server_says_so(place: str, places: Places) -> None:
    """Its labels let it through; what it is told to open is in its command or its profile."""
    for pod in pods(places(place)):
        text = str(pod.spec["containers"])
        if "TUNERY_CONFIG" in text:
            assert pod.labels.get("needs-mlflow") == "true"
        if "@postgres:5432" in text or "optuna-password" in str(pod.spec["volumes"]):
            assert pod.labels.get("needs-postgres") == "true"
