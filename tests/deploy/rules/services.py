"""What speaks to what, and what must stay up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from tests.deploy.manifests import Manifest, Pod, clusters, name, of_kind, pods

SERVICES = frozenset({"Deployment/mlflow", "StatefulSet/postgres", "Deployment/serve"})
# By the version of the protocol: the ranges of a cluster's own addresses, and where clouds hand out credentials.
PRIVATE = {4: frozenset({"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}), 6: frozenset({"fc00::/7"})}
CREDENTIALS = {4: ip_address("169.254.169.254"), 6: ip_address("fd00:ec2::254")}


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
            for block in (peer["ipBlock"] for peer in allowed.get("to", ()) if "ipBlock" in peer):
                to, left_out = ip_network(block["cidr"]), {*block.get("except", ())}
                anywhere = to.prefixlen == 0
                if anywhere and not any(CREDENTIALS[to.version] in ip_network(each) for each in left_out):
                    yield f"{name(policy)}: a cloud's credentials can be fetched"
                if to_head and not scaling:
                    yield f"{name(policy)}: the head needs the API server only for an autoscaler"
                if to_head and not ports <= {443, 6443}:
                    yield f"{name(policy)}: ports {sorted(ports)}"
                if anywhere and not to_head and not (ports == {443} and left_out >= PRIVATE[to.version]):
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
