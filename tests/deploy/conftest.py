"""kubectl, and what it renders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import Manifest

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"

Render = Callable[[Path], list[Manifest]]


@pytest.fixture(scope="session")
def render(kubectl: Path) -> Render:
    @cache
    def rendered(folder: Path) -> str:
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.dumps(list(yaml.safe_load_all(done.stdout)))

    # New each time, because tests break what they get; JSON is read a hundred times faster than YAML.
    return lambda folder: json.loads(rendered(folder))


@pytest.fixture(scope="session")
def places(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Manifest]]:
    """An overlay by its name, or one of `COMPOSED`: a place's own kustomization over an overlay."""

    @cache
    def folder(place: str) -> Path:
        if place not in COMPOSED:
            return K8S / "overlays" / place
        composed = tmp_path_factory.mktemp(place)
        overlay, components, more = COMPOSED[place]
        paths = {
            "resources": [_path(composed, K8S / "overlays" / overlay)],
            "components": [_path(composed, K8S / "components" / each) for each in components],
        }
        (composed / "kustomization.yaml").write_text(yaml.safe_dump({**paths, **more}))
        return composed

    return lambda place: render(folder(place))


def _path(start: Path, to: Path) -> str:
    # Kustomize takes no absolute ones.
    return os.path.relpath(to.resolve(), start.resolve())


OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
_DIGEST = "sha256:" + 64 * "0"
COMPOSED: dict[str, tuple[str, list[str], dict[str, object]]] = {
    "gpu-monitored": ("gpu", ["monitoring"], {}),
    "serve-monitored": ("serve", ["monitoring-serve"], {}),
    "gpu-with-a-database": ("gpu", ["external-postgres"], {}),
    "gpu-as-a-job": ("gpu", ["job"], {}),
    "gpu-pinned": (
        "gpu",
        [],
        {
            "images": [
                {"name": "tunery", "newName": "registry.example.org/tunery", "digest": _DIGEST},
                {"name": "tunery-gpu", "newName": "registry.example.org/tunery-gpu", "digest": _DIGEST},
            ]
        },
    ),
}
PLACES = (*OVERLAYS, *COMPOSED)
