"""KubeRay's operator and Kueue: what they refuse, or do not do as one would think."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tests.deploy.manifests import Manifest, clusters, name, of_kind, pods
from tunery.k8s import quotas

GPU = "nvidia.com/gpu"


def token_authentication(manifests: Sequence[Manifest]) -> Iterator[str]:
    for owner, cluster in clusters(manifests):
        options = cluster.get("authOptions", {})
        if options.get("mode") != "token" or not options.get("secretName"):
            yield f"{owner}: authOptions: expected mode token and a secretName"
        version = [int(part) for part in str(cluster.get("rayVersion", "0")).split(".")]
        if version < [2, 52]:
            yield f"{owner}: rayVersion {cluster.get('rayVersion')}: tokens need 2.52"


def head_computes_nothing(manifests: Sequence[Manifest]) -> Iterator[str]:
    for owner, cluster in clusters(manifests):
        head = cluster["headGroupSpec"]
        if head["rayStartParams"].get("num-cpus") != "0":
            yield f"{owner}: the head's num-cpus: expected '0'"
        for container in head["template"]["spec"]["containers"]:
            if GPU in container["resources"].get("limits", {}):
                yield f"{owner}: the head has a GPU"


def autoscaler_v2(manifests: Sequence[Manifest]) -> Iterator[str]:
    for owner, cluster in clusters(manifests):
        if not cluster.get("enableInTreeAutoscaling"):
            if "autoscalerOptions" in cluster:
                yield f"{owner}: autoscalerOptions without an autoscaler"
            continue
        options = cluster.get("autoscalerOptions", {})
        if options.get("version") != "v2" or not options.get("idleTimeoutSeconds"):
            yield f"{owner}: autoscalerOptions: expected version v2 and idleTimeoutSeconds"
        head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
        for template in (head["template"], *(group["template"] for group in groups)):
            if template["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{owner}: restartPolicy: autoscaler v2 wants Never"
        for variable in head["template"]["spec"]["containers"][0].get("env", ()):
            if variable["name"] == "RAY_enable_autoscaler_v2":
                yield f"{owner}: the autoscaler's version is said twice"
        if any(group.get("suspend") for group in groups):
            yield f"{owner}: a group cannot be suspended where the cluster scales"


def worker_groups(manifests: Sequence[Manifest]) -> Iterator[str]:
    for owner, cluster in clusters(manifests):
        groups = cluster.get("workerGroupSpecs", [])
        names = [group["groupName"] for group in groups]
        if len(set(names)) < len(names):
            yield f"{owner}: a group is there twice"
        for group in groups:
            if not group.get("minReplicas", 0) <= group.get("replicas", 0) <= group["maxReplicas"]:
                yield f"{owner} {group['groupName']}: expected minReplicas <= replicas <= maxReplicas"
            if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & {*group["rayStartParams"]}:
                yield f"{owner} {group['groupName']}: resources are said twice"


def gpu_groups(manifests: Sequence[Manifest]) -> Iterator[str]:
    for owner, cluster in clusters(manifests):
        for group in cluster.get("workerGroupSpecs", []):
            spec, where = group["template"]["spec"], f"{owner} {group['groupName']}"
            has = any(GPU in each["resources"].get("limits", {}) for each in spec["containers"])
            # The operator reads limits, and nothing else, to tell Ray of GPUs.
            if not has and (group["groupName"] == "gpu" or "tunery-gpu" in spec["containers"][0]["image"]):
                yield f"{where}: no {GPU} in its limits"
            if has and not any(each.get("key") == GPU for each in spec.get("tolerations", ())):
                yield f"{where}: does not tolerate GPU nodes' taint"
            if has and not spec.get("nodeSelector"):
                yield f"{where}: may be put on any node"
            if has and cluster.get("enableInTreeAutoscaling") and (group["replicas"] or group["minReplicas"]):
                yield f"{where}: GPUs are held that nobody has asked for"


def jobs(manifests: Sequence[Manifest]) -> Iterator[str]:
    for job in of_kind(manifests, "RayJob"):
        spec, where = job["spec"], name(job)
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"]):
            yield f"{where}: its name is not one for a label of DNS of at most 47 letters"
        if not spec.get("shutdownAfterJobFinishes"):
            yield f"{where}: its cluster stays"
        if spec.get("shutdownAfterJobFinishes") and "deletionRules" in spec.get("deletionStrategy", {}):
            yield f"{where}: shutdownAfterJobFinishes and deletionRules exclude each other"
        if not spec.get("ttlSecondsAfterFinished", 0) > 0:
            yield f"{where}: nothing removes it"
        if not spec.get("activeDeadlineSeconds", 0) > 0:
            yield f"{where}: it may run for ever"
        if spec.get("backoffLimit", 0) < 1:
            yield f"{where}: a lost cluster ends it"
        if ("rayClusterSpec" in spec) == bool(spec.get("clusterSelector")):
            yield f"{where}: expected a rayClusterSpec or a clusterSelector, one of the two"
        # The operator makes the submitter's pod with no security context where no template is given.
        if spec.get("submissionMode", "K8sJobMode") == "K8sJobMode" and "submitterPodTemplate" not in spec:
            yield f"{where}: its submitter is not admitted under Pod Security restricted"


def queues(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Kueue's."""
    known = {queue["metadata"]["name"] for queue in of_kind(manifests, "LocalQueue")}
    for job in of_kind(manifests, "RayJob"):
        queue, spec, where = job["metadata"].get("labels", {}).get("kueue.x-k8s.io/queue-name"), job["spec"], name(job)
        if known and queue not in known:
            yield f"{where}: the queue {queue} is not there"
        if queue is None:
            continue
        if not (spec.get("suspend") and spec.get("shutdownAfterJobFinishes")):
            yield f"{where}: expected suspend and shutdownAfterJobFinishes"
        if spec.get("clusterSelector"):
            yield f"{where}: with a clusterSelector Kueue leaves it alone"
        if spec["rayClusterSpec"].get("enableInTreeAutoscaling"):
            yield f"{where}: Kueue refuses a job that scales"
        groups = [group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]]
        if len(groups) > 7 or "head" in groups:
            yield f"{where}: expected at most seven groups, and none called head"
    for queue in of_kind(manifests, "ClusterQueue"):
        covered = {each for group in queue["spec"]["resourceGroups"] for each in group["coveredResources"]}
        for pod in pods(of_kind(manifests, "RayJob")):
            for container in pod.containers:
                if missing := {*container.get("resources", {}).get("requests", ())} - covered:
                    yield f"{pod.owner}: {name(queue)} has no {', '.join(sorted(missing))}"


def jobs_fit(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Into the queue's quota and the namespace's: a job that does not waits for ever, and nobody says so."""
    yield from quotas.beyond(manifests)
