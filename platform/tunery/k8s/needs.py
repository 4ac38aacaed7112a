"""What rendered objects need of a cluster, read off them: pure functions over manifests and the server's answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
_QUEUE = "kueue.x-k8s.io/queue-name"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
USED = (("spec", "rayClusterSpec", "authOptions"), ("spec", "metadata"), ("spec", "backoffLimit"), ("spec", "jobId"))
"""Fields of a RayJob that older definitions lack."""


def pods(objects: Sequence[Object]) -> Iterator[Mapping[str, Any]]:
    """The specs of all pods that will come of them."""
    for each in objects:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Deployment" | "StatefulSet" | "Job":
                yield spec["template"]["spec"]
            case "RayCluster":
                yield from _of_cluster(spec)
            case "RayJob":
                yield from _of_cluster(spec["rayClusterSpec"])


def _of_cluster(spec: Object) -> Iterator[Mapping[str, Any]]:
    yield spec["headGroupSpec"]["template"]["spec"]
    for group in spec.get("workerGroupSpecs", ()):
        yield group["template"]["spec"]


def secrets(objects: Sequence[Object]) -> dict[str, set[str]]:
    """Name -> the keys that are asked for; optional ones are left out."""
    found: dict[str, set[str]] = {}

    def add(name: str, keys: Sequence[str], source: Mapping[str, Any]) -> None:
        if not source.get("optional"):
            found.setdefault(name, set()).update(keys)

    for pod in pods(objects):
        for volume in pod.get("volumes", ()):
            for source in (volume, *volume.get("projected", {}).get("sources", ())):
                if secret := source.get("secret"):
                    keys = [item["key"] for item in secret.get("items", ())]
                    add(secret.get("secretName") or secret["name"], keys, secret)
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            for variable in container.get("env", ()):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    add(reference["name"], [reference["key"]], reference)
    for each in objects:
        spec = each.get("spec", {})
        cluster = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec", {})}.get(each["kind"], {})
        if token := cluster.get("authOptions", {}).get("secretName"):
            found.setdefault(token, set()).add("auth_token")
    return found


def queue(objects: Sequence[Object]) -> str | None:
    """Kueue's queue that jobs wait in."""
    labels = (each["metadata"].get("labels", {}) for each in objects if each["kind"] == "RayJob")
    return next((found[_QUEUE] for found in labels if _QUEUE in found), None)


def gpus_asked(objects: Sequence[Object]) -> int:
    """That a sweep's workers have together, at most."""
    total = 0
    for each in objects:
        if each["kind"] != "RayJob":
            continue
        for group in each["spec"]["rayClusterSpec"].get("workerGroupSpecs", ()):
            limits = [one["resources"].get("limits", {}) for one in group["template"]["spec"]["containers"]]
            total += group["maxReplicas"] * sum(int(limit.get(GPU, 0)) for limit in limits)
    return total


def gpus_of(nodes: Sequence[Object], objects: Sequence[Object]) -> tuple[int, int]:
    """GPUs of the nodes that a sweep's GPU workers may be put on, and the number of those nodes."""
    wanted = [pod.get("nodeSelector", {}) for pod in pods(objects) if _has_gpu(pod)]
    offered = [
        int(node.get("status", {}).get("allocatable", {}).get(GPU, 0))
        for node in nodes
        if any(labels.items() <= node["metadata"].get("labels", {}).items() for labels in wanted)
    ]
    return sum(offered), sum(count > 0 for count in offered)


def _has_gpu(pod: Mapping[str, Any]) -> bool:
    return any(GPU in each.get("resources", {}).get("limits", {}) for each in pod["containers"])


def classes_missing(objects: Sequence[Object], classes: Sequence[Object]) -> list[str]:
    """Claims that no class of storage is there for."""
    known = {each["metadata"]["name"] for each in classes}
    default = any(each["metadata"].get("annotations", {}).get(_DEFAULT) == "true" for each in classes)
    found = []
    for each in objects:
        claims = [each] if each["kind"] == "PersistentVolumeClaim" else []
        if each["kind"] == "StatefulSet":
            claims = each["spec"].get("volumeClaimTemplates", [])
        for claim in claims:
            wanted = claim["spec"].get("storageClassName")
            name = f"claim {claim['metadata']['name']}"
            if wanted is None and not default:
                found.append(f"{name} names no class, and there is no default")
            elif wanted is not None and wanted not in known:
                found.append(f"{name} names class {wanted}, which is not there")
    return found


def fields_missing(schema: Object) -> list[str]:
    """Of a RayJob's schema, those that are used."""
    return [".".join(path) for path in USED if not _has(schema, path)]


def _has(schema: Any, path: Sequence[str]) -> bool:
    for name in path:
        schema = schema.get("properties", {}).get(name)
        if schema is None:
            return False
    return True


def images(workload: Object) -> list[str]:
    """Of a Deployment's containers."""
    return [each["image"] for each in workload["spec"]["template"]["spec"]["containers"]]


def not_true(found: Object, condition: str) -> str:
    """Why a condition of an object does not hold; empty where it does."""
    for each in (found.get("status") or {}).get("conditions", ()):
        if each["type"] == condition:
            return "" if each["status"] == "True" else str(each.get("message") or each.get("reason") or each["status"])
    return f"its condition {condition} is not known yet"
