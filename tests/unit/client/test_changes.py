from __future__ import annotations

from tunery.client._changes import SHOWN, describe, differences


def test_what_differs_is_told_by_path_and_what_is_the_same_is_not() -> None:
    old = {"name": "glue", "train": {"epochs": 3, "seed": 1}, "tasks": ["cola"], "matrix": {}, "data": {"root": None}}
    new = {"name": "glue", "train": {"epochs": 5}, "tasks": ["cola", "rte"], "matrix": {}, "data": {"root": "x"}}
    assert describe(differences(old, new)).splitlines() == [
        '  data.root:    null -> "x"',
        '  tasks:        ["cola"] -> ["cola", "rte"]',
        "  train.epochs: 3 -> 5",
        "  train.seed:   1 -> (not set)",
    ]


def test_a_number_and_its_text_differ() -> None:
    assert differences({"a": 1}, {"a": "1"}) == {"a": ("1", '"1"')}


def test_an_empty_mapping_that_gets_entries_is_a_difference() -> None:
    assert differences({"matrix": {}}, {"matrix": {"x": [1]}}) == {
        "matrix": ("{}", "(not set)"),
        "matrix.x": ("(not set)", "[1]"),
    }


def test_many_differences_are_counted() -> None:
    old = {f"key{number:03}": number for number in range(SHOWN + 7)}
    lines = describe(differences(old, {})).splitlines()
    assert len(lines) == SHOWN + 1
    assert lines[-1] == "  ... and 7 more"
