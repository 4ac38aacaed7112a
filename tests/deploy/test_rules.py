"""The rules hold of every overlay, and each of their branches is one that can be broken."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.deploy.breaks import BREAKS
from tests.deploy.breaks.broken import GONE, Break
from tests.deploy.conftest import PLACES
from tests.deploy.manifests import Manifest, name
from tests.deploy.rules import RULES, Rule, pods

Places = Callable[[str], list[Manifest]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_holds(place: str, rule: Rule, places: Places) -> None:
    assert list(rule(places(place))) == []


def test_a_place_pins_every_image(places: Places) -> None:
    assert list(pods.every_image_is_pinned(places("gpu-pinned"))) == []
    assert list(pods.every_image_is_pinned(places("gpu"))) != []


@pytest.mark.parametrize("broken", BREAKS, ids=str)
def test_breaking_it_is_told(broken: Break, places: Places) -> None:
    assert any(broken.told in mistake for mistake, _ in _mistakes(broken, places))


def test_every_branch_of_every_rule_is_broken_once(places: Places) -> None:
    told = {(broken.rule, line) for broken in BREAKS for _, line in _mistakes(broken, places)}
    silent = [
        f"{rule.__name__}, line {lines.start}"
        for rule in RULES
        for lines in _branches(rule)
        if not any((rule, line) in told for line in lines)
    ]
    assert silent == []


def _mistakes(broken: Break, places: Places) -> Iterator[tuple[str, int]]:
    """What the rule tells of the broken place, with the line that tells it."""
    manifests = places(broken.place)
    _put(manifests, broken)
    telling: Any = broken.rule(manifests)
    for mistake in telling:
        yield mistake, telling.gi_frame.f_lineno


def _branches(rule: Rule) -> Iterator[range]:
    """The lines of each statement that tells a mistake."""
    source, first = inspect.getsourcelines(rule)
    for node in ast.walk(ast.parse("".join(source))):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            yield range(first + node.lineno - 1, first + (node.end_lineno or node.lineno))


def _put(manifests: Sequence[Manifest], broken: Break) -> None:
    at: Any
    (at,) = (manifest for manifest in manifests if name(manifest) == broken.whose)
    *path, last = broken.path
    for part in path:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    if broken.value is GONE:
        del at[last]
    else:
        at[last] = broken.value(at[last]) if callable(broken.value) else broken.value
