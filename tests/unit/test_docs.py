"""The documentation names what is there: every field, every command, and no file that is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import tuners
from tuners.config import TrainConfig
from tunery import tasks
from tunery.cli.app import command_names
from tunery.spec.space import KINDS
from tunery.spec.types import Spec
from tunery.tasks.custom import CustomTask

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_every_field_of_a_spec_is_documented() -> None:
    text = (ROOT / "docs/spec.md").read_text()
    documented = set(re.findall(r"^\| `([A-Za-z_.]+)` \|", text, re.MULTILINE))
    fields = {*_fields(Spec), *_fields(TrainConfig, "train."), *_fields(CustomTask, "custom.NAME.")}
    for method in tuners.names():
        fields |= set(_fields(tuners.config_class(method), "tuner."))
    assert fields - documented == set()
    assert documented - fields - set(tasks.names()) == set()


def test_every_kind_of_range_and_every_task_is_documented() -> None:
    text = (ROOT / "docs/spec.md").read_text()
    assert [kind for kind in KINDS if f"`{{{kind}: " not in text] == []
    assert [name for name in tasks.names() if f"| `{name}` |" not in text] == []


def test_every_command_is_documented_and_no_other() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    assert set(re.findall(r"^\| `([a-z0-9-]+)[ `]", text, re.MULTILINE)) == set(command_names())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted paths as a spec has them; what is a mapping or a union is one field."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fields(inner, f"{path}.")
        elif path != "tuner":
            yield path
