"""What must hold of the manifests that no schema says. A rule is a function from them to what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.deploy.manifests import Manifest
from tests.deploy.rules import kuberay, pod_security, pods, services

Rule = Callable[[Sequence[Manifest]], Iterator[str]]

RULES: tuple[Rule, ...] = (
    kuberay.token_authentication,
    kuberay.head_computes_nothing,
    kuberay.autoscaler_v2,
    kuberay.worker_groups,
    kuberay.gpu_groups,
    kuberay.jobs,
    kuberay.queues,
    kuberay.jobs_fit,
    pod_security.no_host,
    pod_security.volume_types,
    pod_security.unprivileged,
    pod_security.no_root,
    pod_security.confined,
    pod_security.namespace_is_restricted,
    pods.read_only_root,
    pods.limits,
    pods.no_account_tokens,
    pods.least_rights,
    pods.images,
    pods.secrets_are_files,
    services.network_is_denied,
    services.ways_out,
    services.disruption_budgets,
    services.probes,
    services.mlflow_is_guarded,
    services.names_lead_somewhere,
)
