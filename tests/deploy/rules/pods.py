"""Pods, beyond what that level asks: files, limits, tokens, rights, images, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tests.deploy.manifests import Manifest, contexts, name, of_kind, pods

PLACEHOLDERS = frozenset({"tunery", "tunery-gpu"})
"""Images whose digest a place sets."""


def read_only_root(manifests: Sequence[Manifest]) -> Iterator[str]:
    for pod, container, context in contexts(manifests):
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
                if "secretKeyRef" in variable.get("valueFrom", {}):
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
