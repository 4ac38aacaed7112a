"""KubeRay's schemas, made strict: a field that they do not know is a mistake, where the API server would drop it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.deploy.manifests import Manifest

FOLDER = Path(__file__).parents[3] / "shared" / "k8s" / "crds"
"""Beside a checkout; the schemas are KubeRay's, version 1.7, and no part of this project."""


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
