"""checkov, which judges pods by Pod Security and more: a program of its own, with packages that are none of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "checkov==3.3.30"
TIMEOUT_S = 300.0


def packages(config: pytest.Config) -> Path:
    """The folder with it and all that it imports, fetched once and kept in pytest's cache."""
    assert config.cache is not None
    kept = config.cache.mkdir("checkov") / PACKAGE
    if not kept.exists():
        try:
            _fetch(kept)
        except subprocess.CalledProcessError as error:
            reason = f"{PACKAGE} cannot be fetched: {error.stderr.decode()[-300:]}"
            # Where all is tested nothing is passed over.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return kept


def _fetch(to: Path) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        part = Path(folder) / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(part), PACKAGE]
        subprocess.run(command, check=True, capture_output=True)
        # A process beside this one sees all of it or nothing.
        part.replace(to)


def judge(folder: Path, *, at: Path, passed_over: list[str]) -> list[dict[str, Any]]:
    """The checks that Kubernetes manifests in a folder fail; `at`: of `packages`. It reaches no network."""
    command = [sys.executable, "-S", "-m", "checkov.main", "--framework", "kubernetes", "--directory", str(folder),
               "--output", "json", "--compact", "--quiet", "--skip-download", "--soft-fail",
               "--skip-check", ",".join(passed_over)]  # fmt: skip
    # -S: of the environment that the tests run in it sees nothing.
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(at),
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]["failed_checks"]
    return found
