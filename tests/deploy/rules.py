"""What must hold of the manifests that no schema says. A rule is a function from them to what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.deploy.manifests import Manifest, Pod, clusters, name, of_kind, pods

Rule = Callable[[Sequence[Manifest]], Iterator[str]]

NAMESPACE = "tunery"
PLACEHOLDERS = frozenset({"tunery", "tunery-gpu"})
"""Images whose digest a place sets."""
GPU = "nvidia.com/gpu"
CLUSTER_WIDE = frozenset({"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue"})
# What Ray and its tasks take from the environment alone; every other secret is a file.
FROM_ENVIRONMENT = frozenset({"PGPASSWORD"})
SERVICES = frozenset({"Deployment/mlflow", "StatefulSet/postgres", "Deployment/serve"})
PRIVATE = frozenset({"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"})


# --- KubeRay's operator: what it refuses, or does not do as one would think.


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


# --- Pod Security Standards, level restricted (kubernetes.io/docs/concepts/security/pod-security-standards).

VOLUMES = frozenset(
    {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)
SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
    }
)


def no_host(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.owner}: {field}"
        for container in pod.containers:
            if any(port.get("hostPort") for port in container.get("ports", ())):
                yield f"{pod.owner} {container['name']}: hostPort"
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                for action in ("httpGet", "tcpSocket"):
                    if container.get(probe, {}).get(action, {}).get("host"):
                        yield f"{pod.owner} {container['name']}: {probe} asks another host"


def volume_types(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", ()):
            if kinds := {*volume} - {"name"} - VOLUMES:
                yield f"{pod.owner}: volume {volume['name']}: {', '.join(sorted(kinds))}"


def unprivileged(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            context, where = container.get("securityContext", {}), f"{pod.owner} {container['name']}"
            if context.get("privileged"):
                yield f"{where}: privileged"
            if context.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: allowPrivilegeEscalation: expected false"
            capabilities = context.get("capabilities", {})
            if "ALL" not in capabilities.get("drop", ()):
                yield f"{where}: does not drop all capabilities"
            if {*capabilities.get("add", ())} - {"NET_BIND_SERVICE"}:
                yield f"{where}: adds capabilities"
            if context.get("procMount", "Default") != "Default":
                yield f"{where}: procMount"


def no_root(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod, container, context in _contexts(manifests):
        if context.get("runAsNonRoot") is not True:
            yield f"{pod.owner} {container}: runAsNonRoot: expected true"
        if context.get("runAsUser", 0) == 0:
            yield f"{pod.owner} {container}: runAsUser: expected a number that is not 0"


def confined(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod, container, context in _contexts(manifests):
        where = f"{pod.owner} {container}"
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{where}: seccompProfile: expected RuntimeDefault"
        if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
            yield f"{where}: appArmorProfile: Unconfined"
        linux = context.get("seLinuxOptions", {})
        if linux.get("user") or linux.get("role"):
            yield f"{where}: seLinuxOptions"
        if context.get("windowsOptions", {}).get("hostProcess"):
            yield f"{where}: hostProcess"
        if {each["name"] for each in context.get("sysctls", ())} - SYSCTLS:
            yield f"{where}: sysctls"


def namespace_is_restricted(manifests: Sequence[Manifest]) -> Iterator[str]:
    for namespace in of_kind(manifests, "Namespace"):
        for mode in ("enforce", "audit", "warn"):
            if namespace["metadata"].get("labels", {}).get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"{name(namespace)}: {mode}: expected restricted"
    for manifest in manifests:
        expected = None if manifest["kind"] in CLUSTER_WIDE else NAMESPACE
        if manifest["metadata"].get("namespace") != expected:
            yield f"{name(manifest)}: its namespace: expected {expected}"


def _contexts(manifests: Sequence[Manifest]) -> Iterator[tuple[Pod, str, Mapping[str, Any]]]:
    """Each container's security context over its pod's."""
    for pod in pods(manifests):
        for container in pod.containers:
            yield (
                pod,
                container["name"],
                {**pod.spec.get("securityContext", {}), **container.get("securityContext", {})},
            )


# --- Beyond that level.


def read_only_root(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod, container, context in _contexts(manifests):
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{pod.owner} {container}: readOnlyRootFilesystem: expected true"


def limits(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for container in pod.containers:
            resources, where = container.get("resources", {}), f"{pod.owner} {container['name']}"
            if missing := {"cpu", "memory", "ephemeral-storage"} - {*resources.get("requests", ())}:
                yield f"{where}: requests no {', '.join(sorted(missing))}"
            if missing := {"memory", "ephemeral-storage"} - {*resources.get("limits", ())}:
                yield f"{where}: no limit of {', '.join(sorted(missing))}"
        for volume in pod.spec.get("volumes", ()):
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{pod.owner}: volume {volume['name']}: no sizeLimit"
    for kind in ("ResourceQuota", "LimitRange"):
        if not of_kind(manifests, kind):
            yield f"no {kind}"


def no_account_tokens(manifests: Sequence[Manifest]) -> Iterator[str]:
    """But the autoscaler's, in its container alone."""
    for account in of_kind(manifests, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"{name(account)}: automountServiceAccountToken: expected false"
    for pod in pods(manifests):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner}: automountServiceAccountToken: expected false"
        tokens = {
            volume["name"]
            for volume in pod.spec.get("volumes", ())
            if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", ()))
        }
        mounted = {
            container["name"]
            for container in pod.containers
            if tokens & {mount["name"] for mount in container.get("volumeMounts", ())}
        }
        if mounted - {"autoscaler"} or (tokens and not mounted):
            yield f"{pod.owner}: a token for {', '.join(sorted(mounted)) or 'nobody'}"


def least_rights(manifests: Sequence[Manifest]) -> Iterator[str]:
    for manifest in of_kind(manifests, "ClusterRole", "ClusterRoleBinding"):
        yield f"{name(manifest)}: rights in the whole cluster"
    for role in of_kind(manifests, "Role"):
        for rule in role["rules"]:
            if "*" in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]) or "secrets" in rule["resources"]:
                yield f"{name(role)}: {rule}"
    for pod in pods(manifests):
        if pod.spec.get("serviceAccountName", "default") == "default":
            yield f"{pod.owner}: no account of its own"


def images(manifests: Sequence[Manifest]) -> Iterator[str]:
    """By digest, or by a name whose digest a place sets. A tag beside a digest is for people."""
    for pod in pods(manifests):
        for container in pod.containers:
            if container["image"] in PLACEHOLDERS:
                continue
            if not re.search(r"@sha256:[0-9a-f]{64}$", container["image"]):
                yield f"{pod.owner} {container['name']}: {container['image']}: expected a digest"


def every_image_is_pinned(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Of what a place applies: its own kustomization has set the placeholders."""
    yield from images(manifests)
    for pod in pods(manifests):
        for container in pod.containers:
            if container["image"] in PLACEHOLDERS:
                yield f"{pod.owner} {container['name']}: {container['image']}: its digest is not set"


def secrets_are_files(manifests: Sequence[Manifest]) -> Iterator[str]:
    for secret in of_kind(manifests, "Secret"):
        yield f"{name(secret)}: a secret in a manifest"
    for pod in pods(manifests):
        for container in pod.containers:
            where = f"{pod.owner} {container['name']}"
            for variable in container.get("env", ()):
                if "secretKeyRef" in variable.get("valueFrom", {}) and variable["name"] not in FROM_ENVIRONMENT:
                    yield f"{where}: {variable['name']} could be a file"
                if "value" in variable and re.search(
                    r"(PASSWORD|TOKEN|SECRET|_KEY)(?!_(FILE|PATH)$)", variable["name"]
                ):
                    yield f"{where}: {variable['name']} has its value in the manifest"
            if any("secretRef" in source for source in container.get("envFrom", ())):
                yield f"{where}: a whole secret in the environment"
        for volume in pod.spec.get("volumes", ()):
            for source in (volume, *volume.get("projected", {}).get("sources", ())):
                if "secret" in source and volume.get("projected", source["secret"]).get("defaultMode") != 0o440:
                    yield f"{pod.owner}: volume {volume['name']}: defaultMode: expected 0440"
    for manifest in of_kind(manifests, "ConfigMap"):
        for key, value in manifest.get("data", {}).items():
            if re.search(r"(?i)(password|secret|token)\s*(=|: )\s*[\"']?\w|://[^/\s:]+:[^/\s@]+@", value):
                yield f"{name(manifest)}: {key} holds a secret"


def network_is_denied(manifests: Sequence[Manifest]) -> Iterator[str]:
    policies = of_kind(manifests, "NetworkPolicy")
    if not any(
        policy["spec"]["podSelector"] == {}
        and {*policy["spec"]["policyTypes"]} == {"Ingress", "Egress"}
        and not policy["spec"].get("ingress")
        and not policy["spec"].get("egress")
        for policy in policies
    ):
        yield "no policy denies everything"
    for policy in policies:
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for allowed in policy["spec"].get(direction, ()):
                if not allowed.get(peers) or {} in allowed[peers]:
                    yield f"{name(policy)}: {direction}: anybody"
                if any(peer.get("namespaceSelector") == {} for peer in allowed.get(peers, ())):
                    yield f"{name(policy)}: {direction}: every namespace"
                among_ray = allowed.get(peers) == [{"podSelector": policy["spec"]["podSelector"]}]
                if not allowed.get("ports") and not among_ray:
                    yield f"{name(policy)}: {direction}: every port"


def ways_out(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Addresses outside: the internet without private ranges; an API server for the autoscaler; one database."""
    scaling = any(cluster.get("enableInTreeAutoscaling") for _, cluster in clusters(manifests))
    for policy in of_kind(manifests, "NetworkPolicy"):
        to_head = policy["spec"]["podSelector"].get("matchLabels") == {"ray.io/node-type": "head"}
        for allowed in policy["spec"].get("egress", ()):
            ports = {port["port"] for port in allowed.get("ports", ())}
            for block in (peer["ipBlock"] for peer in allowed["to"] if "ipBlock" in peer):
                anywhere, left_out = block["cidr"] == "0.0.0.0/0", {*block.get("except", ())}
                if anywhere and not any(each.startswith("169.254.") for each in left_out):
                    yield f"{name(policy)}: a cloud's credentials can be fetched"
                if to_head and not scaling:
                    yield f"{name(policy)}: the head needs the API server only for an autoscaler"
                if to_head and not ports <= {443, 6443}:
                    yield f"{name(policy)}: ports {sorted(ports)}"
                if anywhere and not to_head and not (ports == {443} and left_out >= PRIVATE):
                    yield f"{name(policy)}: reaches the cluster's own addresses"


def disruption_budgets(manifests: Sequence[Manifest]) -> Iterator[str]:
    budgets = [budget["spec"] for budget in of_kind(manifests, "PodDisruptionBudget")]
    for pod in pods(manifests):
        service = pod.owner.endswith(" head") or pod.owner in SERVICES
        guarded = any(_selects(each["selector"], pod) and each.get("minAvailable") == 1 for each in budgets)
        if service and not guarded:
            yield f"{pod.owner}: a drain takes it"


def probes(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Of what serves; Ray's are KubeRay's."""
    for pod in pods(manifests):
        if pod.owner in SERVICES:
            for container in pod.spec["containers"]:
                if missing := {"startupProbe", "readinessProbe", "livenessProbe"} - {*container}:
                    yield f"{pod.owner}: no {', '.join(sorted(missing))}"


def mlflow_is_guarded(manifests: Sequence[Manifest]) -> Iterator[str]:
    by_name = {name(manifest): manifest for manifest in manifests}
    container = by_name["Deployment/mlflow"]["spec"]["template"]["spec"]["containers"][0]
    command = " ".join(container["args"])
    hosts = {variable["name"]: variable.get("value", "") for variable in container["env"]}.get("ALLOWED_HOSTS", "")
    if '--allowed-hosts "$ALLOWED_HOSTS"' not in command or not hosts or "*" in hosts:
        yield "mlflow: answers to any name"
    if "--app-name basic-auth" not in command:
        yield "mlflow: asks for no user"
    if "--disable-security-middleware" in command:
        yield "mlflow: checks no host"
    if by_name["ConfigMap/mlflow"]["data"].get("MLFLOW_ALLOW_PICKLE_DESERIALIZATION") != "false":
        yield "mlflow: loads pickles"
    if "default_permission = NO_PERMISSIONS" not in by_name["ConfigMap/mlflow-auth"]["data"]["basic_auth.ini"]:
        yield "mlflow: who has no grant sees something"


def names_lead_somewhere(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Kustomize does not follow names into custom resources, and Kubernetes not into labels."""
    there = {name(manifest) for manifest in manifests}
    for pod in pods(manifests):
        for reference in _references(pod):
            if reference not in there:
                yield f"{pod.owner}: {reference} is not there"
    everyone = list(pods(manifests))
    for manifest in of_kind(manifests, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = manifest["spec"]
        selector = {"matchLabels": spec["selector"]} if manifest["kind"] == "Service" and "selector" in spec else None
        selector = selector or spec.get("podSelector") or (spec.get("selector") if "minAvailable" in spec else None)
        if selector and not any(_selects(selector, pod) for pod in everyone):
            yield f"{name(manifest)}: selects no pod"


def _references(pod: Pod) -> Iterator[str]:
    yield f"ServiceAccount/{pod.spec.get('serviceAccountName')}"
    yield f"PriorityClass/{pod.spec.get('priorityClassName')}"
    for volume in pod.spec.get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}"
        if "configMap" in volume and not volume["configMap"].get("optional"):
            yield f"ConfigMap/{volume['configMap']['name']}"
    for container in pod.containers:
        for source in container.get("envFrom", ()):
            yield f"ConfigMap/{source['configMapRef']['name']}"


def _selects(selector: Mapping[str, Any], pod: Pod) -> bool:
    return {*selector["matchLabels"].items()} <= {*pod.labels.items()}


RULES: tuple[Rule, ...] = (
    token_authentication,
    head_computes_nothing,
    autoscaler_v2,
    worker_groups,
    gpu_groups,
    jobs,
    queues,
    no_host,
    volume_types,
    unprivileged,
    no_root,
    confined,
    namespace_is_restricted,
    read_only_root,
    limits,
    no_account_tokens,
    least_rights,
    images,
    secrets_are_files,
    network_is_denied,
    ways_out,
    disruption_budgets,
    probes,
    mlflow_is_guarded,
    names_lead_somewhere,
)
