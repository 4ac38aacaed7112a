"""The rules hold of every overlay, and each of them is one that can be broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.deploy.conftest import PLACES
from tests.deploy.manifests import Manifest, name
from tests.deploy.rules import RULES, Rule, kuberay, pod_security, pods, services

Places = Callable[[str], list[Manifest]]
Path = tuple[str | int, ...]
GONE = object()

HEAD: Path = ("spec", "headGroupSpec", "template", "spec")
CPU: Path = ("spec", "workerGroupSpecs", 0)
GPU: Path = ("spec", "workerGroupSpecs", 1)
POD: Path = ("spec", "template", "spec")
CONTAINER: Path = (*POD, "containers", 0)
IN_JOB: Path = ("spec", "rayClusterSpec")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_holds(place: str, rule: Rule, places: Places) -> None:
    assert list(rule(places(place))) == []


def test_a_place_pins_every_image(places: Places) -> None:
    assert list(pods.every_image_is_pinned(places("gpu-pinned"))) == []
    assert list(pods.every_image_is_pinned(places("gpu"))) != []


def _break(rule: Rule, whose: str, path: Path, value: object, place: str = "gpu") -> Any:
    ends = ".".join(map(str, path))[-60:]
    return pytest.param(rule, place, whose, path, value, id=f"{rule.__name__}-{whose}-{ends}")


RAY, JOB, SERVE = "RayCluster/tunery", "RayJob/tunery", "Deployment/serve"
MLFLOW, POSTGRES = "Deployment/mlflow", "StatefulSet/postgres"

BREAKS = [
    _break(kuberay.token_authentication, RAY, ("spec", "authOptions", "mode"), "disabled"),
    _break(kuberay.token_authentication, RAY, ("spec", "authOptions", "secretName"), GONE),
    _break(kuberay.token_authentication, RAY, ("spec", "authOptions"), GONE),
    _break(kuberay.token_authentication, RAY, ("spec", "rayVersion"), "2.51.3"),
    _break(kuberay.token_authentication, JOB, (*IN_JOB, "authOptions"), GONE, "gpu-kueue"),
    _break(kuberay.head_computes_nothing, RAY, ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), "2"),
    _break(kuberay.head_computes_nothing, RAY, (*HEAD, "containers", 0, "resources", "limits", kuberay.GPU), "1"),
    _break(kuberay.autoscaler_v2, RAY, ("spec", "autoscalerOptions", "version"), "v1"),
    _break(kuberay.autoscaler_v2, RAY, ("spec", "autoscalerOptions", "idleTimeoutSeconds"), GONE),
    _break(kuberay.autoscaler_v2, RAY, (*HEAD, "restartPolicy"), "Always"),
    _break(kuberay.autoscaler_v2, RAY, (*GPU, "template", "spec", "restartPolicy"), "OnFailure"),
    _break(kuberay.autoscaler_v2, RAY, (*CPU, "suspend"), True),
    _break(kuberay.autoscaler_v2, RAY, ("spec", "enableInTreeAutoscaling"), False),
    _break(
        kuberay.autoscaler_v2,
        RAY,
        (*HEAD, "containers", 0, "env", 0),
        {"name": "RAY_enable_autoscaler_v2", "value": "1"},
    ),
    _break(kuberay.worker_groups, RAY, (*GPU, "groupName"), "cpu"),
    _break(kuberay.worker_groups, RAY, (*CPU, "replicas"), 9),
    _break(
        kuberay.worker_groups,
        RAY,
        CPU,
        {"groupName": "x", "maxReplicas": 1, "rayStartParams": {"num-cpus": "1"}, "resources": {"CPU": "1"}},
    ),
    _break(
        kuberay.gpu_groups, RAY, (*GPU, "template", "spec", "containers", 0, "resources", "limits", kuberay.GPU), GONE
    ),
    _break(kuberay.gpu_groups, RAY, (*GPU, "template", "spec", "tolerations"), GONE),
    _break(kuberay.gpu_groups, RAY, (*GPU, "template", "spec", "nodeSelector"), GONE),
    _break(kuberay.gpu_groups, RAY, (*GPU, "minReplicas"), 1),
    _break(kuberay.jobs, JOB, ("metadata", "name"), "Tunery", "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "shutdownAfterJobFinishes"), False, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "deletionStrategy"), {"deletionRules": []}, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "ttlSecondsAfterFinished"), GONE, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "activeDeadlineSeconds"), GONE, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "backoffLimit"), GONE, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "clusterSelector"), {"ray.io/cluster": "tunery"}, "gpu-kueue"),
    _break(kuberay.jobs, JOB, ("spec", "submissionMode"), GONE, "gpu-kueue"),
    _break(kuberay.queues, JOB, ("metadata", "labels", "kueue.x-k8s.io/queue-name"), "another", "gpu-kueue"),
    _break(kuberay.queues, JOB, ("spec", "suspend"), GONE, "gpu-kueue"),
    _break(kuberay.queues, JOB, ("spec", "clusterSelector"), {"ray.io/cluster": "tunery"}, "gpu-kueue"),
    _break(kuberay.queues, JOB, (*IN_JOB, "enableInTreeAutoscaling"), True, "gpu-kueue"),
    _break(kuberay.queues, JOB, (*IN_JOB, "workerGroupSpecs", 0, "groupName"), "head", "gpu-kueue"),
    _break(
        kuberay.queues, "ClusterQueue/tunery", ("spec", "resourceGroups", 0, "coveredResources"), ["cpu"], "gpu-kueue"
    ),
    *(
        _break(rule, whose, path, value, place)
        for whose, pod, place in (
            (MLFLOW, POD, "gpu"),
            (POSTGRES, POD, "gpu"),
            ("Job/mlflow-migrate", POD, "gpu"),
            (SERVE, POD, "serve"),
            (RAY, HEAD, "gpu"),
            (RAY, (*GPU, "template", "spec"), "gpu"),
            (JOB, (*IN_JOB, *HEAD[1:]), "gpu-kueue"),
            (JOB, (*IN_JOB, *GPU[1:], "template", "spec"), "gpu-kueue"),
        )
        for rule, path, value in (
            (pod_security.no_host, (*pod, "hostNetwork"), True),
            (pod_security.no_host, (*pod, "hostPID"), True),
            (pod_security.no_host, (*pod, "hostIPC"), True),
            (pod_security.no_host, (*pod, "containers", 0, "ports"), [{"containerPort": 80, "hostPort": 80}]),
            (
                pod_security.no_host,
                (*pod, "containers", 0, "livenessProbe"),
                {"httpGet": {"host": "10.0.0.1", "port": 80}},
            ),
            (pod_security.volume_types, (*pod, "volumes", 0), {"name": "x", "hostPath": {"path": "/"}}),
            (pod_security.unprivileged, (*pod, "containers", 0, "securityContext", "privileged"), True),
            (pod_security.unprivileged, (*pod, "containers", 0, "securityContext", "allowPrivilegeEscalation"), GONE),
            (
                pod_security.unprivileged,
                (*pod, "containers", 0, "securityContext", "capabilities", "drop"),
                ["NET_RAW"],
            ),
            (
                pod_security.unprivileged,
                (*pod, "containers", 0, "securityContext", "capabilities", "add"),
                ["SYS_ADMIN"],
            ),
            (pod_security.unprivileged, (*pod, "containers", 0, "securityContext", "procMount"), "Unmasked"),
            (pod_security.unprivileged, (*pod, "containers", 0, "securityContext"), GONE),
            (pod_security.no_root, (*pod, "securityContext", "runAsNonRoot"), False),
            (pod_security.no_root, (*pod, "securityContext", "runAsUser"), 0),
            (pod_security.no_root, (*pod, "securityContext"), GONE),
            (pod_security.no_root, (*pod, "containers", 0, "securityContext", "runAsUser"), 0),
            (pod_security.confined, (*pod, "securityContext", "seccompProfile"), GONE),
            (
                pod_security.confined,
                (*pod, "containers", 0, "securityContext", "seccompProfile"),
                {"type": "Unconfined"},
            ),
            (pod_security.confined, (*pod, "securityContext", "appArmorProfile"), {"type": "Unconfined"}),
            (pod_security.confined, (*pod, "securityContext", "seLinuxOptions"), {"user": "root"}),
            (pod_security.confined, (*pod, "securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
            (pod_security.confined, (*pod, "securityContext", "windowsOptions"), {"hostProcess": True}),
            (pods.read_only_root, (*pod, "containers", 0, "securityContext", "readOnlyRootFilesystem"), GONE),
            (pods.limits, (*pod, "containers", 0, "resources", "limits", "memory"), GONE),
            (pods.limits, (*pod, "containers", 0, "resources", "requests", "cpu"), GONE),
            (pods.no_account_tokens, (*pod, "automountServiceAccountToken"), GONE),
            (pods.least_rights, (*pod, "serviceAccountName"), GONE),
            (pods.images, (*pod, "containers", 0, "image"), "postgres:18.4"),
            (pods.images, (*pod, "containers", 0, "image"), "tunery:latest"),
            (pods.images, (*pod, "containers", 0, "image"), "postgres@sha256:882236b8"),
            (pods.secrets_are_files, (*pod, "containers", 0, "env"), [{"name": "HF_TOKEN", "value": "hf_x"}]),
            (
                pods.secrets_are_files,
                (*pod, "containers", 0, "env"),
                [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}],
            ),
            (pods.secrets_are_files, (*pod, "containers", 0, "envFrom"), [{"secretRef": {"name": "x"}}]),
            (pods.secrets_are_files, (*pod, "volumes", 0), {"name": "x", "secret": {"secretName": "x"}}),
            (services.names_lead_somewhere, (*pod, "serviceAccountName"), "somebody"),
            (services.names_lead_somewhere, (*pod, "priorityClassName"), "urgent"),
            (services.names_lead_somewhere, (*pod, "volumes", 0), {"name": "x", "configMap": {"name": "x-5h2k9"}}),
            (
                services.names_lead_somewhere,
                (*pod, "volumes", 0),
                {"name": "x", "persistentVolumeClaim": {"claimName": "x"}},
            ),
        )
    ),
    _break(pod_security.unprivileged, RAY, ("spec", "autoscalerOptions", "securityContext"), GONE),
    _break(pods.limits, RAY, ("spec", "autoscalerOptions", "resources"), GONE),
    _break(pods.limits, MLFLOW, (*POD, "volumes", 3, "emptyDir"), {}),
    _break(pods.limits, "ResourceQuota/tunery", ("kind",), "ConfigMap"),
    _break(pods.limits, "LimitRange/tunery", ("kind",), "ConfigMap"),
    _break(pod_security.namespace_is_restricted, "Namespace/tunery", ("metadata", "labels"), {}),
    _break(
        pod_security.namespace_is_restricted,
        "Namespace/tunery",
        ("metadata", "labels", "pod-security.kubernetes.io/enforce"),
        "baseline",
    ),
    _break(pod_security.namespace_is_restricted, MLFLOW, ("metadata", "namespace"), "default"),
    _break(pod_security.namespace_is_restricted, RAY, ("metadata", "namespace"), GONE),
    _break(pods.no_account_tokens, "ServiceAccount/ray-worker", ("automountServiceAccountToken",), True),
    _break(
        pods.no_account_tokens,
        RAY,
        (*HEAD, "containers", 0, "volumeMounts", 0),
        {"name": "api-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ),
    _break(pods.no_account_tokens, RAY, ("spec", "autoscalerOptions", "volumeMounts"), []),
    _break(pods.least_rights, "ServiceAccount/mlflow", ("kind",), "ClusterRoleBinding"),
    _break(pods.secrets_are_files, "ConfigMap/mlflow", ("kind",), "Secret"),
    _break(pods.secrets_are_files, "ConfigMap/mlflow", ("data", "URI"), "postgresql://mlflow:secret@postgres/mlflow"),
    _break(pods.secrets_are_files, "ConfigMap/mlflow-auth", ("data", "basic_auth.ini"), "admin_password = hunter2"),
    _break(services.network_is_denied, "NetworkPolicy/default-deny", ("spec", "policyTypes"), ["Ingress"]),
    _break(services.network_is_denied, "NetworkPolicy/default-deny", ("spec", "egress"), [{}]),
    _break(services.network_is_denied, "NetworkPolicy/default-deny", ("kind",), "ConfigMap"),
    _break(services.network_is_denied, "NetworkPolicy/mlflow", ("spec", "ingress", 0, "from"), GONE),
    _break(services.network_is_denied, "NetworkPolicy/mlflow", ("spec", "ingress", 0, "ports"), GONE),
    _break(
        services.network_is_denied, "NetworkPolicy/mlflow", ("spec", "ingress", 0, "from"), [{"namespaceSelector": {}}]
    ),
    _break(
        services.network_is_denied, "NetworkPolicy/ray", ("spec", "ingress", 0, "from", 0), {"namespaceSelector": {}}
    ),
    _break(services.ways_out, "NetworkPolicy/to-internet", ("spec", "egress", 0, "to", 0, "ipBlock", "except"), GONE),
    _break(
        services.ways_out,
        "NetworkPolicy/to-internet",
        ("spec", "egress", 0, "to", 0, "ipBlock", "except"),
        ["169.254.0.0/16"],
    ),
    _break(services.ways_out, "NetworkPolicy/to-internet", ("spec", "egress", 0, "ports", 0, "port"), 22),
    _break(
        services.ways_out,
        "NetworkPolicy/autoscaler-to-api-server",
        ("spec", "podSelector", "matchLabels"),
        {"ray.io/is-ray-node": "yes"},
    ),
    _break(services.ways_out, "NetworkPolicy/autoscaler-to-api-server", ("spec", "egress", 0, "ports", 0, "port"), 22),
    _break(services.ways_out, RAY, ("spec", "enableInTreeAutoscaling"), False),
    _break(services.disruption_budgets, "PodDisruptionBudget/ray-head", ("spec", "minAvailable"), 0),
    _break(services.disruption_budgets, "PodDisruptionBudget/mlflow", ("spec", "selector", "matchLabels"), {"a": "b"}),
    _break(services.disruption_budgets, "PodDisruptionBudget/postgres", ("kind",), "ConfigMap"),
    _break(services.disruption_budgets, "PodDisruptionBudget/serve", ("kind",), "ConfigMap", "serve"),
    _break(services.probes, MLFLOW, (*CONTAINER, "readinessProbe"), GONE),
    _break(services.probes, POSTGRES, (*CONTAINER, "livenessProbe"), GONE),
    _break(services.probes, SERVE, (*CONTAINER, "startupProbe"), GONE, "serve"),
    _break(services.mlflow_is_guarded, MLFLOW, (*CONTAINER, "env", 2, "value"), "*"),
    _break(services.mlflow_is_guarded, MLFLOW, (*CONTAINER, "args", 0), "exec mlflow server"),
    _break(services.mlflow_is_guarded, "ConfigMap/mlflow", ("data", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"), "true"),
    _break(
        services.mlflow_is_guarded, "ConfigMap/mlflow-auth", ("data", "basic_auth.ini"), "default_permission = READ"
    ),
    _break(services.names_lead_somewhere, "Service/mlflow", ("spec", "selector"), {"app": "mlflow"}),
    _break(services.names_lead_somewhere, "NetworkPolicy/mlflow", ("spec", "podSelector", "matchLabels"), {"a": "b"}),
    _break(services.names_lead_somewhere, "ConfigMap/postgres-client", ("metadata", "name"), "postgres-client-x"),
]


@pytest.mark.parametrize(("rule", "place", "whose", "path", "value"), BREAKS)
def test_breaking_it_is_told(rule: Rule, place: str, whose: str, path: Path, value: object, places: Places) -> None:
    manifests = places(place)
    _put(manifests, whose, path, value)
    assert list(rule(manifests)) != []


def test_every_rule_is_broken_once() -> None:
    assert {each.values[0] for each in BREAKS} == {*RULES}


def _put(manifests: Sequence[Manifest], whose: str, path: Path, value: object) -> None:
    at: Any
    (at,) = (manifest for manifest in manifests if name(manifest) == whose)
    for part in path[:-1]:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
