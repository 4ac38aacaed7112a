"""The namespace, rights, the network, and services."""

from __future__ import annotations

from collections.abc import Callable

from tests.deploy.breaks.broken import (
    CONTAINER,
    GONE,
    HEAD,
    LABELS,
    MLFLOW,
    POD,
    POSTGRES,
    QUOTA,
    RAY,
    SERVE,
    Break,
    Path,
)
from tests.deploy.rules import pod_security, pods, services


def _without(words: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        assert words in text
        return text.replace(words, "")

    return changed


_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


_DENY, _ROLE = "NetworkPolicy/default-deny", "Role/tunery-submitter"
_INTERNET, _API = "NetworkPolicy/to-internet", "NetworkPolicy/autoscaler-to-api-server"
_BLOCK: Path = ("spec", "egress", 0, "to", 0, "ipBlock")
_PORT: Path = ("spec", "egress", 0, "ports", 0, "port")

BREAKS = [
    Break(
        pod_security.unprivileged, "autoscaler: allowPriv", RAY, ("spec", "autoscalerOptions", "securityContext"), GONE
    ),
    Break(pods.limits, "autoscaler: no limit of", RAY, ("spec", "autoscalerOptions", "resources"), GONE),
    Break(pods.limits, "no sizeLimit", MLFLOW, (*POD, "volumes", 3, "emptyDir"), {}),
    Break(pods.limits, "no ResourceQuota", QUOTA, ("kind",), "ConfigMap"),
    Break(pods.limits, "no LimitRange", "LimitRange/tunery", ("kind",), "ConfigMap"),
    Break(pod_security.namespace_is_restricted, "enforce: expected", "Namespace/tunery", ("metadata", "labels"), {}),
    Break(
        pod_security.namespace_is_restricted,
        "enforce: expected restricted",
        "Namespace/tunery",
        ("metadata", "labels", "pod-security.kubernetes.io/enforce"),
        "baseline",
    ),
    Break(pod_security.namespace_is_restricted, "its namespace", MLFLOW, ("metadata", "namespace"), "default"),
    Break(pod_security.namespace_is_restricted, "its namespace", RAY, ("metadata", "namespace"), GONE),
    Break(
        pods.no_account_tokens,
        "ServiceAccount/ray-worker: automount",
        "ServiceAccount/ray-worker",
        ("automountServiceAccountToken",),
        True,
    ),
    Break(
        pods.no_account_tokens,
        "a token for autoscaler, ray-head",
        RAY,
        (*HEAD, "containers", 0, "volumeMounts", 0),
        {"name": "api-token", "mountPath": _TOKEN},
    ),
    Break(pods.no_account_tokens, "a token for nobody", RAY, ("spec", "autoscalerOptions", "volumeMounts"), []),
    Break(pods.least_rights, "rights in the whole cluster", "ServiceAccount/mlflow", ("kind",), "ClusterRoleBinding"),
    Break(pods.least_rights, "'verbs': ['*']", _ROLE, ("rules", 0, "verbs"), ["*"]),
    Break(pods.least_rights, "'resources': ['*']", _ROLE, ("rules", 0, "resources"), ["*"]),
    Break(pods.least_rights, "'resources': ['secrets']", _ROLE, ("rules", 0, "resources"), ["secrets"]),
    Break(pods.secrets_are_files, "a secret in a manifest", "ConfigMap/mlflow", ("kind",), "Secret"),
    Break(
        pods.secrets_are_files,
        "URI holds a secret",
        "ConfigMap/mlflow",
        ("data", "URI"),
        "postgresql://mlflow:secret@postgres/mlflow",
    ),
    Break(
        pods.secrets_are_files,
        "basic_auth.ini holds a secret",
        "ConfigMap/mlflow-auth",
        ("data", "basic_auth.ini"),
        "admin_password = hunter2",
    ),
    Break(services.network_is_denied, "no policy denies", _DENY, ("spec", "policyTypes"), ["Ingress"]),
    Break(services.network_is_denied, "no policy denies", _DENY, ("spec", "egress"), [{}]),
    Break(services.network_is_denied, "no policy denies", _DENY, ("kind",), "ConfigMap"),
    Break(services.network_is_denied, "ingress: anybody", "NetworkPolicy/mlflow", ("spec", "ingress", 0, "from"), GONE),
    Break(services.network_is_denied, "egress: anybody", "NetworkPolicy/to-mlflow", ("spec", "egress", 0, "to"), GONE),
    Break(services.network_is_denied, "every port", "NetworkPolicy/mlflow", ("spec", "ingress", 0, "ports"), GONE),
    Break(
        services.network_is_denied,
        "every namespace",
        "NetworkPolicy/mlflow",
        ("spec", "ingress", 0, "from"),
        [{"namespaceSelector": {}}],
    ),
    Break(
        services.network_is_denied,
        "every namespace",
        "NetworkPolicy/ray",
        ("spec", "ingress", 0, "from", 0),
        {"namespaceSelector": {}},
    ),
    Break(services.ways_out, "credentials can be fetched", _INTERNET, (*_BLOCK, "except"), GONE),
    Break(services.ways_out, "the cluster's own addresses", _INTERNET, (*_BLOCK, "except"), ["169.254.0.0/16"]),
    Break(services.ways_out, "credentials can be fetched", _INTERNET, _BLOCK, {"cidr": "::/0"}),
    Break(
        services.ways_out, "the cluster's own addresses", _INTERNET, _BLOCK, {"cidr": "::/0", "except": ["fd00::/8"]}
    ),
    Break(services.ways_out, "the cluster's own addresses", _INTERNET, _PORT, 22),
    Break(services.ways_out, "the cluster's own addresses", _API, LABELS, {"ray.io/is-ray-node": "yes"}),
    Break(services.ways_out, "ports [22, 6443]", _API, _PORT, 22),
    Break(services.ways_out, "only for an autoscaler", RAY, ("spec", "enableInTreeAutoscaling"), False),
    Break(
        services.disruption_budgets,
        "a drain takes it",
        "PodDisruptionBudget/ray-head",
        ("spec", "minAvailable"),
        0,
    ),
    Break(
        services.disruption_budgets,
        f"{MLFLOW}: a drain",
        "PodDisruptionBudget/mlflow",
        ("spec", "selector", "matchLabels"),
        {"a": "b"},
    ),
    Break(services.disruption_budgets, f"{POSTGRES}: a drain", "PodDisruptionBudget/postgres", ("kind",), "ConfigMap"),
    Break(
        services.disruption_budgets, f"{SERVE}: a drain", "PodDisruptionBudget/serve", ("kind",), "ConfigMap", "serve"
    ),
    Break(services.probes, "no readinessProbe", MLFLOW, (*CONTAINER, "readinessProbe"), GONE),
    Break(services.probes, "no livenessProbe", POSTGRES, (*CONTAINER, "livenessProbe"), GONE),
    Break(services.probes, "no startupProbe", SERVE, (*CONTAINER, "startupProbe"), GONE, "serve"),
    Break(services.mlflow_is_guarded, "answers to any name", MLFLOW, (*CONTAINER, "env", 2, "value"), "*"),
    Break(
        services.mlflow_is_guarded,
        "answers to any name",
        MLFLOW,
        (*CONTAINER, "args", 0),
        _without('--allowed-hosts "$ALLOWED_HOSTS"'),
    ),
    Break(
        services.mlflow_is_guarded,
        "asks for no user",
        MLFLOW,
        (*CONTAINER, "args", 0),
        _without("--app-name basic-auth"),
    ),
    Break(
        services.mlflow_is_guarded,
        "checks no host",
        MLFLOW,
        (*CONTAINER, "args", 0),
        lambda text: f"{text.rstrip()} --disable-security-middleware\n",
    ),
    Break(
        services.mlflow_is_guarded,
        "loads pickles",
        "ConfigMap/mlflow",
        ("data", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"),
        "true",
    ),
    Break(
        services.mlflow_is_guarded,
        "who has no grant",
        "ConfigMap/mlflow-auth",
        ("data", "basic_auth.ini"),
        "default_permission = READ",
    ),
    Break(services.names_lead_somewhere, "selects no pod", "Service/mlflow", ("spec", "selector"), {"app": "mlflow"}),
    Break(services.names_lead_somewhere, "selects no pod", "NetworkPolicy/mlflow", LABELS, {"a": "b"}),
    Break(
        services.names_lead_somewhere,
        "ConfigMap/postgres-client is not there",
        "ConfigMap/postgres-client",
        ("metadata", "name"),
        "postgres-client-x",
    ),
]
