"""What each program's pod, and each of Ray's, must not be."""

from __future__ import annotations

from typing import Any

from tests.deploy.breaks.broken import (
    GONE,
    GPU,
    HEAD,
    IN_JOB,
    JOB,
    MIGRATE,
    MLFLOW,
    POD,
    POSTGRES,
    RAY,
    SERVE,
    Break,
    Path,
    env,
)
from tests.deploy.rules import Rule, pod_security, pods, services

_FROM_SECRET = {"secretKeyRef": {"name": "x", "key": "y"}}

_PODS = (
    (MLFLOW, POD, "gpu"),
    (POSTGRES, POD, "gpu"),
    (MIGRATE, POD, "gpu"),
    (SERVE, POD, "serve"),
    (RAY, HEAD, "gpu"),
    (RAY, (*GPU, "template", "spec"), "gpu"),
    (JOB, (*IN_JOB, *HEAD[1:]), "gpu-kueue"),
    (JOB, (*IN_JOB, *GPU[1:], "template", "spec"), "gpu-kueue"),
)
_FIRST: Path = ("containers", 0)
_CONTEXT: Path = (*_FIRST, "securityContext")
_OF_A_POD: tuple[tuple[Rule, str, Path, Any], ...] = (
    (pod_security.no_host, "hostNetwork", ("hostNetwork",), True),
    (pod_security.no_host, "hostPID", ("hostPID",), True),
    (pod_security.no_host, "hostIPC", ("hostIPC",), True),
    (pod_security.no_host, "hostPort", (*_FIRST, "ports"), [{"containerPort": 80, "hostPort": 80}]),
    *(
        (
            pod_security.no_host,
            f"{what[-1]} asks another host by {way}",
            (*_FIRST, *what),
            {way: {"host": "10.0.0.1", "port": 80}},
        )
        for what in (("livenessProbe",), ("startupProbe",), ("lifecycle", "postStart"), ("lifecycle", "preStop"))
        for way in ("httpGet", "tcpSocket")
    ),
    (pod_security.volume_types, "volume x: hostPath", ("volumes", 0), {"name": "x", "hostPath": {"path": "/"}}),
    (pod_security.unprivileged, "privileged", (*_CONTEXT, "privileged"), True),
    (pod_security.unprivileged, "allowPrivilegeEscalation", (*_CONTEXT, "allowPrivilegeEscalation"), GONE),
    (pod_security.unprivileged, "does not drop all", (*_CONTEXT, "capabilities", "drop"), ["NET_RAW"]),
    (pod_security.unprivileged, "adds capabilities", (*_CONTEXT, "capabilities", "add"), ["SYS_ADMIN"]),
    (pod_security.unprivileged, "procMount", (*_CONTEXT, "procMount"), "Unmasked"),
    (pod_security.unprivileged, "does not drop all", _CONTEXT, GONE),
    (pod_security.no_root, "runAsNonRoot", ("securityContext", "runAsNonRoot"), False),
    (pod_security.no_root, "runAsUser", ("securityContext", "runAsUser"), 0),
    (pod_security.no_root, "runAsUser", ("securityContext",), GONE),
    (pod_security.no_root, "runAsUser", (*_CONTEXT, "runAsUser"), 0),
    (pod_security.confined, "expected RuntimeDefault", ("securityContext", "seccompProfile"), GONE),
    (pod_security.confined, "expected RuntimeDefault", (*_CONTEXT, "seccompProfile"), {"type": "Unconfined"}),
    (
        pod_security.confined,
        "appArmorProfile: Unconfined",
        ("securityContext", "appArmorProfile"),
        {"type": "Unconfined"},
    ),
    (pod_security.confined, "a user or a role", ("securityContext", "seLinuxOptions"), {"user": "root"}),
    (pod_security.confined, "a user or a role", ("securityContext", "seLinuxOptions"), {"role": "sysadm_r"}),
    (pod_security.confined, "type spc_t", ("securityContext", "seLinuxOptions"), {"type": "spc_t"}),
    (pod_security.confined, "sysctls", ("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
    (pod_security.confined, "hostProcess", ("securityContext", "windowsOptions"), {"hostProcess": True}),
    (pods.read_only_root, "readOnlyRootFilesystem", (*_CONTEXT, "readOnlyRootFilesystem"), GONE),
    (pods.limits, "no limit of memory", (*_FIRST, "resources", "limits", "memory"), GONE),
    (pods.limits, "requests no cpu", (*_FIRST, "resources", "requests", "cpu"), GONE),
    (pods.no_account_tokens, "automountServiceAccountToken", ("automountServiceAccountToken",), GONE),
    (pods.least_rights, "no account of its own", ("serviceAccountName",), GONE),
    (pods.images, "expected a digest", (*_FIRST, "image"), "postgres:18.4"),
    (pods.images, "expected a digest", (*_FIRST, "image"), "tunery:latest"),
    (pods.images, "expected a digest", (*_FIRST, "image"), "postgres@sha256:882236b8"),
    (pods.secrets_are_files, "has its value in the manifest", (*_FIRST, "env"), env("HF_TOKEN", value="hf_x")),
    (pods.secrets_are_files, "could be a file", (*_FIRST, "env"), env("HF_TOKEN", valueFrom=_FROM_SECRET)),
    (pods.secrets_are_files, "a whole secret", (*_FIRST, "envFrom"), [{"secretRef": {"name": "x"}}]),
    (pods.secrets_are_files, "volume x: defaultMode", ("volumes", 0), {"name": "x", "secret": {"secretName": "x"}}),
    (
        pods.secrets_are_files,
        "volume x: defaultMode",
        ("volumes", 0),
        {"name": "x", "projected": {"defaultMode": 0o444, "sources": [{"secret": {"name": "x"}}]}},
    ),
    (services.names_lead_somewhere, "ServiceAccount/somebody is not there", ("serviceAccountName",), "somebody"),
    (services.names_lead_somewhere, "PriorityClass/urgent is not there", ("priorityClassName",), "urgent"),
    (
        services.names_lead_somewhere,
        "ConfigMap/x-5h2k9 is not there",
        ("volumes", 0),
        {"name": "x", "configMap": {"name": "x-5h2k9"}},
    ),
    (
        services.names_lead_somewhere,
        "PersistentVolumeClaim/x is not there",
        ("volumes", 0),
        {"name": "x", "persistentVolumeClaim": {"claimName": "x"}},
    ),
)
BREAKS = [
    Break(rule, told, whose, (*pod, *path), value, place)
    for whose, pod, place in _PODS
    for rule, told, path, value in _OF_A_POD
]
