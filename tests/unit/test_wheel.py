"""The wheel, built as users get it: what is in it, and that a client of it finds what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {"platform/tunery": "tunery", "tuners": "tuners", "storage": "storage", "deploy/k8s": "tunery/deploy/k8s"}
"""What of the sources -> where in the wheel."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution found for hatchling" in done.stderr:
        # Where all is tested nothing is passed over.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the build's backend cannot be had: {done.stderr}")
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("tunery-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_it_holds_the_packages_and_the_manifests_and_nothing_else(installed: Path) -> None:
    expected = {f"{to}/{file}" for part, to in PARTS.items() for file in files(ROOT / part)}
    found = {file for file in files(installed) if ".dist-info/" not in file}
    assert found == expected
    (scripts,) = installed.glob("*.dist-info/entry_points.txt")
    assert {"platform = tunery.cli.app:main", "tunery = tunery.cli.app:main"} <= set(scripts.read_text().splitlines())


def files(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(folder).as_posix()


@pytest.mark.usefixtures("kubectl_on_path")
@pytest.mark.parametrize("command", [["schema"], ["k8s", "render"], ["validate", "sweep.yaml", "-o", "json"]])
def test_a_client_of_it_gives_what_the_sources_give(command: list[str], installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('default = "k"\n[profiles.k]\ntarget = "kubernetes"\ntracking_uri = "http://127.0.0.1:9"\n')
    asked: dict[str, str] = {}
    for name, path in (("wheel", installed), ("sources", os.pathsep.join(map(str, (ROOT / "platform", ROOT))))):
        folder = tmp_path / name
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(path), "TUNERY_CONFIG": str(config), "TUNERY_HOME": str(folder)}
        for given in (["init", "sweep.yaml"], command):
            done = subprocess.run(
                [sys.executable, "-P", "-m", "tunery.cli.app", *given],
                cwd=folder, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        asked[name] = done.stdout
        where = [sys.executable, "-P", "-c", "import tunery; print(tunery.__file__)"]
        found = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
        assert Path(found).is_relative_to(installed) == (name == "wheel")
    assert asked["wheel"] == asked["sources"] != ""
