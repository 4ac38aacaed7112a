"""kubectl, and what it renders."""

from __future__ import annotations

import json
import os
import re
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
    """An overlay by its name, or a place's own kustomization over one: of `COMPOSED`, or of `DOCUMENTED`."""

    @cache
    def folder(place: str) -> Path:
        if place in OVERLAYS:
            return K8S / "overlays" / place
        composed = tmp_path_factory.mktemp(place)
        if place in DOCUMENTED:
            _follow(DOCUMENTED[place], composed)
            return composed
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


def _follow(kustomization: str, into: Path) -> None:
    """As who reads it would: the checkout's path and an image's digest put in, files that it names written."""
    text = kustomization.replace("../tunery/deploy/k8s", _path(into, K8S)).replace("sha256:...", _DIGEST)
    content = yaml.safe_load(text)
    # What is said to be put into one's overlay has none below it.
    content.setdefault("resources", [_path(into, K8S / "overlays" / "gpu-kueue")])
    (into / "kustomization.yaml").write_text(yaml.safe_dump(content))
    profiles = (K8S / "base" / "services" / "config.toml").read_text()
    stored = '[profiles.cluster]\nstore = "s3://your-bucket/runs"\n'
    (into / "config.toml").write_text(profiles.replace("[profiles.cluster]\n", stored))


def _documented() -> dict[str, str]:
    """Heading -> the kustomization below it, of the documents that show some."""
    found = {}
    for document in (ROOT / "deploy" / "README.md", ROOT / "docs" / "kubernetes.md"):
        for section in re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:]:
            for block in re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
                found[re.sub(r"\W+", "-", section.splitlines()[0]).lower()] = block
    return found


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
DOCUMENTED = _documented()
PLACES = (*OVERLAYS, *COMPOSED, *DOCUMENTED)
