from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_source_root_is_no_package() -> None:
    # With an __init__.py it would stand before the standard library's module `platform`, and little would import.
    assert (ROOT / "platform" / "tunery").is_dir()
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "tests" / "platform" / "__init__.py").exists()


def test_platform_is_the_standard_librarys() -> None:
    assert platform.python_implementation()
    code = "import platform; print(platform.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not Path(found.strip()).is_relative_to(ROOT / "platform")
