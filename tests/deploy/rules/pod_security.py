"""Pod Security Standards, level restricted (kubernetes.io/docs/concepts/security/pod-security-standards)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.deploy.manifests import Manifest, contexts, name, of_kind, pods

NAMESPACE = "tunery"
CLUSTER_WIDE = frozenset({"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue"})


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
SELINUX = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})


def no_host(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(field):
                yield f"{pod.owner}: {field}"
        for container in pod.containers:
            if any(port.get("hostPort") for port in container.get("ports", ())):
                yield f"{pod.owner} {container['name']}: hostPort"
            asks = {probe: container.get(probe, {}) for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
            for what, action in {**asks, **container.get("lifecycle", {})}.items():
                for way in ("httpGet", "tcpSocket"):
                    if action.get(way, {}).get("host"):
                        yield f"{pod.owner} {container['name']}: {what} asks another host by {way}"


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
    for pod, container, context in contexts(manifests):
        if context.get("runAsNonRoot") is not True:
            yield f"{pod.owner} {container}: runAsNonRoot: expected true"
        if context.get("runAsUser", 0) == 0:
            yield f"{pod.owner} {container}: runAsUser: expected a number that is not 0"


def confined(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod, container, context in contexts(manifests):
        where = f"{pod.owner} {container}"
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{where}: seccompProfile: expected RuntimeDefault"
        if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
            yield f"{where}: appArmorProfile: Unconfined"
        linux = context.get("seLinuxOptions", {})
        if linux.get("user") or linux.get("role"):
            yield f"{where}: seLinuxOptions: a user or a role"
        if linux.get("type", "") not in SELINUX:
            yield f"{where}: seLinuxOptions: type {linux['type']}"
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
