"""What deploy/k8s makes of a profile's values: kustomize renders it, as `kubectl kustomize`.

The manifests are those of the repository; a wheel brings a copy of the folder. The profile's values are written as a
kustomization over the overlay, in two layers: patches that follow a namespace must see what kustomize made of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tunery.errors import MissingExtraError, ProfileError
from tunery.k8s import needs, quotas
from tunery.kube import Image, Kubernetes

Object = dict[str, Any]
OWN_NAMESPACE = "tunery"
"""The one that the manifests are written for."""
TIMEOUT_S = 120.0
_MLFLOW_PORT = 5000
_PODS_CONFIG = "tunery"
"""The ConfigMap with the profiles of the pods."""
_PODS_PROFILE = "[profiles.cluster]"
_STORE_SECRET = "store"


def shipped() -> Path:
    """The folder deploy/k8s: beside the sources, or in the wheel."""
    within = Path(__file__).parents[1]
    for folder in (within / "deploy" / "k8s", within.parents[1] / "deploy" / "k8s"):
        if (folder / "overlays").is_dir():
            return folder
    raise ProfileError(f"the manifests of deploy/k8s are not with this installation of tunery in {within}")


def overlay(settings: Kubernetes) -> Path:
    """The overlay's folder. ProfileError where there is none."""
    named = Path(settings.overlay).expanduser()
    if settings.overlay != named.name or settings.overlay.startswith("~"):
        found, known = named.absolute(), ""
    else:
        folder = shipped() / "overlays"
        found = folder / settings.overlay
        known = f"; known: {', '.join(sorted(each.name for each in folder.iterdir()))}, or a folder by its path"
    if not any((found / name).is_file() for name in ("kustomization.yaml", "kustomization.yml", "Kustomization")):
        raise ProfileError(f"overlay {settings.overlay!r}: no kustomization in {found}{known}")
    return found


def render(settings: Kubernetes, *, with_job: bool = False) -> list[Object]:
    """The objects, in the order in which they are to be applied; `with_job`: with the RayJob that a sweep is sent as.

    MissingExtraError where kubectl is not there; ProfileError where kustomize refuses, or a sweep's job would ask for
    more than its queue or the namespace ever gives.
    """
    objects = _rendered(settings, settings.components)
    if with_job and not any(each["kind"] == "RayJob" for each in objects):
        objects = _rendered(settings, (*settings.components, "job"))
    try:
        more = quotas.beyond(objects)
    except ValueError as error:
        raise ProfileError(f"overlay {settings.overlay!r}: {error}; amounts are such as 200m, 64Gi or 4") from error
    if more:
        raise ProfileError(
            f"{'; '.join(more)}: no sweep would ever start. Name fewer gpus in the profile, or raise the quota in an "
            "overlay of your own: docs/kubernetes.md shows one under Sizing"
        )
    return objects


def job(settings: Kubernetes) -> Object:
    """The RayJob that a sweep is sent as: everything but the sweep."""
    found = [each for each in render(settings, with_job=True) if each["kind"] == "RayJob"]
    if len(found) != 1:
        raise ProfileError(
            f"overlay {settings.overlay!r}: expected one RayJob, the form of what is sent, got {len(found)}"
        )
    return found[0]


def to_yaml(objects: list[Object]) -> str:
    """As kubectl reads it."""
    return "---\n".join(yaml.safe_dump(each, sort_keys=False, allow_unicode=True, width=120) for each in objects)


def _rendered(settings: Kubernetes, components: Sequence[str]) -> list[Object]:
    with tempfile.TemporaryDirectory(prefix="tunery-k8s-") as scratch:
        root = Path(scratch).resolve()
        inner, outer = root / "inner", root / "outer"
        _write(inner, _inner(settings, components, inner))
        _write(outer, {"resources": ["../inner"], "patches": list(_outer_patches(settings))})
        text = _kustomize(outer)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    objects = [_asking_for(settings.namespace, each) for each in yaml.load_all(text, loader) if each]
    if settings.store is not None:
        _keep_checkpoints(objects, settings.store, settings)
    return objects


def _asking_for(namespace: str, thing: Object) -> Object:
    """Alerts and dashboards ask for metrics of the namespace, which kustomize does not see within their expressions."""
    dashboards = "grafana_dashboard" in thing["metadata"].get("labels", {})
    if thing["kind"] != "PrometheusRule" and not dashboards:
        return thing
    text = re.sub(rf'(namespace=\\+"){OWN_NAMESPACE}(\\+")', rf"\g<1>{namespace}\2", json.dumps(thing))
    found: Object = json.loads(text)
    if dashboards and namespace != OWN_NAMESPACE:
        found["data"] = dict(_dashboard_of(namespace, file, text) for file, text in found["data"].items())
    return found


def _dashboard_of(namespace: str, file: str, text: str) -> tuple[str, str]:
    """A dashboard that stands beside those of other namespaces: Grafana takes one a file's name and one a uid."""
    board = json.loads(text)
    uid = f"{board['uid']}-{hashlib.sha256(namespace.encode()).hexdigest()[:12]}"  # of 40 characters at most
    board |= {"uid": uid, "title": f"{board['title']}, {namespace}"}
    name = Path(file)
    return f"{name.stem}-{namespace}{name.suffix}", json.dumps(board, indent=1)


def _keep_checkpoints(objects: Sequence[Object], store: str, settings: Kubernetes) -> None:
    """The profile of Ray's pods names the store, and the secret with its key is no longer one that may be left out."""
    for each in objects:
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == _PODS_CONFIG:
            each["data"]["config.toml"] = _stored(each["data"]["config.toml"], store, settings)
    for pod in needs.pods(objects):
        for volume in pod.get("volumes", ()):
            for source in volume.get("projected", {}).get("sources", ()):
                if source.get("secret", {}).get("name") == _STORE_SECRET:
                    source["secret"].pop("optional", None)


def _stored(text: str, store: str, settings: Kubernetes) -> str:
    """The pods' config.toml with the store in it."""
    header, there = f"{_PODS_PROFILE}\n", tomllib.loads(text).get("profiles", {}).get("cluster", {})
    if text.count(header) != 1 or {"store", "s3"} & {*there}:
        raise ProfileError(
            f"overlay {settings.overlay!r}: the config.toml of its pods cannot take the store of the profile: expected "
            f"{_PODS_PROFILE} once, with no store and no s3 of its own; name the store there, and not in the profile"
        )
    endpoint = f"s3 = {{endpoint = {json.dumps(settings.s3_endpoint)}}}\n" if settings.s3_endpoint else ""
    return text.replace(header, f"{header}store = {json.dumps(store)}\n{endpoint}")


def _write(folder: Path, content: Object) -> None:
    folder.mkdir()
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({**head, **content}), encoding="utf-8")


def _inner(settings: Kubernetes, components: Sequence[str], folder: Path) -> Object:
    known = shipped() / "components"
    for name in components:
        if not (known / name / "kustomization.yaml").is_file():
            there = ", ".join(sorted(each.name for each in known.iterdir()))
            raise ProfileError(f"component {name!r}: not in deploy/k8s/components; known: {there}")
    content: Object = {
        # Kustomize takes no absolute paths.
        "resources": [os.path.relpath(overlay(settings).resolve(), folder)],
        "components": [os.path.relpath((known / name).resolve(), folder) for name in components],
        "images": [_image(name, text) for name, text in _images(settings)],
    }
    if settings.namespace != OWN_NAMESPACE:
        content["namespace"] = settings.namespace
    return content


def _images(settings: Kubernetes) -> Iterator[tuple[str, str]]:
    for name, text in (("tunery", settings.image), ("tunery-gpu", settings.gpu_image)):
        if text != name:
            yield name, text


def _image(name: str, text: str) -> Object:
    image = Image.of(text)
    which = {"digest": image.digest} if image.digest else {"newTag": image.tag} if image.tag else {}
    return {"name": name, "newName": image.name, **which}


def _patch(kind: str, *operations: Object, name: str = "") -> Object:
    target = {"kind": kind, **({"name": name} if name else {})}
    return {"target": target, "patch": yaml.safe_dump(list(operations))}


def _put(path: str, value: object) -> Object:
    # In a JSON patch `add` replaces what is there.
    return {"op": "add", "path": path, "value": value}


def _outer_patches(settings: Kubernetes) -> Iterator[Object]:
    namespace = settings.namespace
    if namespace != OWN_NAMESPACE:
        for kind in ("ClusterQueue", "ResourceFlavor"):
            # Kustomize takes every kind that it does not know for one of a namespace.
            yield _patch(kind, {"op": "remove", "path": "/metadata/namespace"})
        selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        yield _patch("ClusterQueue", _put("/spec/namespaceSelector", selector))
    if namespace != OWN_NAMESPACE or settings.hosts:
        names = ["mlflow", *(f"mlflow.{namespace}{more}" for more in ("", ".svc", ".svc.cluster.local")), "localhost"]
        allowed = ",".join([*(f"{name}:{_MLFLOW_PORT}" for name in names), *settings.hosts])
        container = {"name": "mlflow", "env": [{"name": "ALLOWED_HOSTS", "value": allowed}]}
        changed = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "mlflow"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
        yield {"target": {"kind": "Deployment", "name": "mlflow"}, "patch": yaml.safe_dump(changed)}
    if settings.artifacts is not None:
        given = {"MLFLOW_ARTIFACTS_DESTINATION": settings.artifacts}
        if settings.s3_endpoint is not None:
            given["MLFLOW_S3_ENDPOINT_URL"] = settings.s3_endpoint
        yield _patch("ConfigMap", *(_put(f"/data/{key}", value) for key, value in given.items()), name="mlflow")
    if settings.storage_class is not None:
        path = "/spec/volumeClaimTemplates/0/spec/storageClassName"
        yield _patch("StatefulSet", _put(path, settings.storage_class), name="postgres")
    if settings.shared_storage_class is not None:
        yield _patch(
            "PersistentVolumeClaim", _put("/spec/storageClassName", settings.shared_storage_class), name="tunery"
        )
    if settings.gpus is not None:
        yield from _gpus(settings.gpus)


def _gpus(gpus: int) -> Iterator[Object]:
    """A GPU each for so many workers; what is queued asks for all of them at once."""
    for kind, at in (("RayCluster", "/spec"), ("RayJob", "/spec/rayClusterSpec")):
        group = f"{at}/workerGroupSpecs/1"
        yield _patch(
            kind,
            {"op": "test", "path": f"{group}/groupName", "value": "gpu"},
            _put(f"{group}/maxReplicas", gpus),
        )
    queued = "/spec/rayClusterSpec/workerGroupSpecs/1"
    yield {
        "target": {"kind": "RayJob", "labelSelector": "kueue.x-k8s.io/queue-name"},
        "patch": yaml.safe_dump([_put(f"{queued}/{key}", gpus) for key in ("replicas", "minReplicas")]),
    }


def _kustomize(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise MissingExtraError(
            "kubectl is not on the PATH; it renders the manifests (kubectl kustomize): install it from your system's "
            "packages or as https://kubernetes.io/docs/tasks/tools says, version 1.27 or later"
        )
    try:
        done = subprocess.run(
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProfileError(f"{kubectl} cannot render: {error}") from error
    if done.returncode != 0:
        raise ProfileError(f"kustomize cannot make what the profile says of the overlay: {done.stderr.strip()}")
    return done.stdout
