"""The image: its Dockerfile, and the versions that the manifests speak of."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.conftest import PLACES, ROOT
from tests.deploy.manifests import Manifest, clusters

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def hadolint() -> str:
    # A test that runs in a virtual environment need not have its folder on the PATH.
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert found, "hadolint is not installed: it comes with the extra dev"
    return found


def _lint(hadolint: str, text: str) -> str:
    done = subprocess.run([hadolint, "--failure-threshold", "style", "-"], input=text, capture_output=True, text=True)
    return done.stdout


def test_the_dockerfile_is_clean(hadolint: str) -> None:
    assert _lint(hadolint, DOCKERFILE.read_text()) == ""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("hatchling==", "hatchling #", "DL3013"),
        ("PIP_NO_CACHE_DIR=1", "PIP_NO_CACHE_DIR=0", "DL3042"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("WORKDIR /source", "WORKDIR source", "DL3000"),
    ],
)
def test_a_fault_in_it_is_told(old: str, new: str, told: str, hadolint: str) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    assert told in _lint(hadolint, text.replace(old, new))


def test_both_targets_run_as_a_numbered_user_and_look_at_themselves() -> None:
    text = DOCKERFILE.read_text()
    for target in ("cpu", "gpu"):
        stage = re.split(r"^FROM ", text, flags=re.MULTILINE)
        (found,) = (each for each in stage if each.startswith(f"runtime AS {target}\n"))
        assert "\nUSER 10001:10001\nRUN platform doctor\n" in found
    assert 'HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["platform", "doctor"]' in text


def test_every_base_has_a_digest() -> None:
    text = DOCKERFILE.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
    assert bases == {"${PYTHON_IMAGE}"}
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_no_source_reaches_the_image() -> None:
    text = DOCKERFILE.read_text()
    last = text[text.index("AS runtime\n") :]
    assert set(re.findall(r"^COPY (.*)$", last, re.MULTILINE)) == {
        "--from=cpu-packages /opt/tunery /opt/tunery",
        "--from=gpu-packages /opt/tunery /opt/tunery",
    }


def test_the_build_sees_what_the_wheel_is_made_of_and_no_more() -> None:
    lines = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    target = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    wheel = {*target["packages"], *target["force-include"]}
    assert let_in == wheel | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in let_in)


def test_versions_in_the_dockerfile_are_the_pinned_ones() -> None:
    named = dict(re.findall(r" ([a-z-]+)==([\w.]+)", DOCKERFILE.read_text()))
    assert named.pop("hatchling")
    assert named == {"torch": _pins()["torch"]}


def test_its_extras_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\[([a-z,]+)\]\"$", DOCKERFILE.read_text(), re.MULTILINE)
    assert extras
    for extra in {name for each in extras for name in each.split(",")}:
        for requirement in project["optional-dependencies"][extra]:
            package = re.split(r"[\[<>=~ ]", requirement)[0].lower()
            assert package == "tunery" or package in _pins()


@pytest.mark.parametrize("place", PLACES)
def test_rays_version_is_the_pinned_one(place: str, places: Callable[[str], list[Manifest]]) -> None:
    for owner, cluster in clusters(places(place)):
        assert cluster["rayVersion"] == _pins()["ray"], owner


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        name.lower().replace("_", "-"): version
        for name, _, version in (line.partition("==") for line in lines if "==" in line)
    }
