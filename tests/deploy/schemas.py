"""KubeRay's schemas, made strict: a field that they do not know is a mistake, where the API server would drop it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.deploy.manifests import Manifest

KUBERNETES = "1.37"
FOLDER = Path(__file__).parents[3] / "shared" / "k8s" / "crds"
"""Beside a checkout; the schemas are KubeRay's, version 1.7, and no part of this project."""
RAY = ("RayCluster", "RayJob")
# Of others' custom resources; their schemas are not at hand. A kind that is added is validated or named here.
UNCHECKED = frozenset({"ResourceFlavor", "ClusterQueue", "LocalQueue", "PodMonitor", "PrometheusRule"})
MISSING = (
    f"no definitions of KubeRay in {FOLDER}: take ray.io_rayclusters.yaml and ray.io_rayjobs.yaml out of the folder "
    "helm-chart/kuberay-operator/crds of github.com/ray-project/kuberay at v1.7.0 (no package index has them)"
)


def of_any(manifest: Manifest) -> list[str]:
    """Where a manifest departs from its schema, as far as that is at hand."""
    if manifest["kind"] in UNCHECKED:
        return []
    if manifest["kind"] in RAY:
        return mistakes(manifest) if FOLDER.is_dir() else []
    noted = ("uid", "resourceVersion", "creationTimestamp")  # by the server, and of no interest
    metadata = {key: value for key, value in manifest["metadata"].items() if key not in noted}
    return _of_core(json.dumps({**manifest, "metadata": metadata}))


@cache
def _of_core(text: str) -> list[str]:
    """Once for each: all definitions are read again every time."""
    try:
        kubernetes_validate.validate(json.loads(text), KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


def mistakes(manifest: Manifest) -> list[str]:
    """Where a manifest of a Ray kind departs from its schema."""
    group, version = manifest["apiVersion"].split("/")
    schema = _schema(FOLDER / f"{group}_{manifest['kind'].lower()}s.yaml", version)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in errors]


_known: dict[tuple[Path, str], Mapping[str, Any]] = {}


def _schema(file: Path, version: str) -> Mapping[str, Any]:
    if (file, version) not in _known:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte takes the other one ten seconds
        definition = yaml.load(file.read_text(), loader)
        (found,) = (each["schema"] for each in definition["spec"]["versions"] if each["name"] == version)
        _known[file, version] = _strict(found["openAPIV3Schema"])
    return _known[file, version]


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # Under `properties` stand fields, one of which may be called as a keyword is.
    strict = {
        key: {field: _strict(each) for field, each in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict
