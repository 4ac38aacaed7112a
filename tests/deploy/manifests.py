"""What kustomize renders, as the rules see it: documents, and the pods that will come of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

_TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "Job")


@dataclass(frozen=True)
class Pod:
    """A pod's template, with what KubeRay's operator adds to it."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All, init containers too."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def name(manifest: Manifest) -> str:
    """`Kind/name`."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def clusters(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The Ray clusters, also those within jobs and services: who has it, and its spec."""
    for manifest in of_kind(manifests, "RayCluster", "RayJob", "RayService"):
        key = {"RayCluster": None, "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}[manifest["kind"]]
        spec = manifest["spec"] if key is None else manifest["spec"].get(key)
        if spec is not None:
            yield name(manifest), spec


def pods(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    """The pods of every kind that makes some."""
    for manifest in of_kind(manifests, *_TEMPLATES):
        yield _pod(name(manifest), manifest["spec"]["template"])
    for manifest in of_kind(manifests, "CronJob"):
        yield _pod(name(manifest), manifest["spec"]["jobTemplate"]["spec"]["template"])
    for manifest in of_kind(manifests, "Pod"):
        yield _pod(name(manifest), manifest)
    for manifest in of_kind(manifests, "RayJob"):
        if template := manifest["spec"].get("submitterPodTemplate"):
            yield _pod(f"{name(manifest)} submitter", template)
    for owner, cluster in clusters(manifests):
        yield _head(f"{owner} head", cluster)
        for group in cluster.get("workerGroupSpecs", ()):
            yield _worker(f"{owner} {group['groupName']}", group)


def _pod(owner: str, template: Mapping[str, Any], **labels: str) -> Pod:
    return Pod(owner, {**template.get("metadata", {}).get("labels", {}), **labels}, template["spec"])


def _head(owner: str, cluster: Manifest) -> Pod:
    pod = _pod(owner, cluster["headGroupSpec"]["template"], **_ray_labels("head"))
    if not cluster.get("enableInTreeAutoscaling"):
        return pod
    options = cluster.get("autoscalerOptions", {})
    given = {key: options[key] for key in ("resources", "securityContext", "volumeMounts", "env") if key in options}
    # By default it runs the head's image.
    autoscaler = {"name": "autoscaler", "image": options.get("image") or pod.spec["containers"][0]["image"], **given}
    return Pod(owner, pod.labels, {**pod.spec, "containers": [*pod.spec["containers"], autoscaler]})


def _worker(owner: str, group: Manifest) -> Pod:
    pod = _pod(owner, group["template"], **_ray_labels("worker"))
    # It waits for the head with the image and the security context of the Ray container.
    waiting = {**pod.spec["containers"][0], "name": "wait-gcs-ready"}
    return Pod(owner, pod.labels, {**pod.spec, "initContainers": [*pod.spec.get("initContainers", ()), waiting]})


def _ray_labels(node: str) -> dict[str, str]:
    return {"ray.io/is-ray-node": "yes", "ray.io/node-type": node}


def contexts(manifests: Sequence[Manifest]) -> Iterator[tuple[Pod, str, Mapping[str, Any]]]:
    """Each container's security context over its pod's."""
    for pod in pods(manifests):
        for container in pod.containers:
            yield (
                pod,
                container["name"],
                {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})},
            )
