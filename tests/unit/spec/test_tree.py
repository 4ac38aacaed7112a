"""What a file may hold, and that nothing in it takes long or does anything."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunery.errors import SpecError
from tunery.spec import load_spec, parse_spec
from tunery.spec.tree import parse, resolve

# What explodes would take hours; this only says so sooner.
pytestmark = pytest.mark.timeout(60)

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join([f'*{chr(97 + level)}'] * 9)}]\n" for level in range(9)
)


def refused(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, file="x.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml:1:1: expected a mapping with the keys of a spec, got an empty file"),
        ("# nothing\n", "x.yaml:1:1: expected a mapping with the keys of a spec, got an empty file"),
        ("- a", "x.yaml:1:1: expected a mapping with the keys of a spec, got a list"),
        ("just text", "x.yaml:1:1: expected a mapping with the keys of a spec, got 'just text'"),
        ("a: 1\na: 2", "x.yaml:2:1: duplicate key 'a'; it stands in line 1 already"),
        ("a: {b: 1,\n b: 2}", "x.yaml:2:2: duplicate key 'b'; it stands in line 1 already"),
        ("a: &x 1", "x.yaml:1:4: a YAML anchor ('x'); write the value out where it is needed"),
        ("a: 1\nb: *x", "x.yaml:2:4: a YAML alias ('x')"),
        ("a: !!python/object/apply:os.system [ls]", "x.yaml:1:4: a YAML tag (tag:yaml.org,2002:python/object/apply"),
        ("a: !!int 3", "x.yaml:1:4: a YAML tag"),
        ("a: ! 3", "x.yaml:1:4: a YAML tag"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1: a second document"),
        ("a: [1, 2", "x.yaml:2:1: not YAML: while parsing a flow sequence"),
        ("a: 1\n\tb: 2", "x.yaml:2:1: not YAML"),
        ("? [a]\n: b", "x.yaml:1:3: a key that is not a word"),
        ('a: "\\x07"', "x.yaml:1:4: a control character"),
        ('"\\0": 1', "x.yaml:1:1: a control character"),
        ("a: \x07", "x.yaml:1:4: a character that is not text: '\\x07'"),
        ("a: 1\nb: \ud800", "x.yaml:2:4: a character that is not text"),
        ("a: " + "[" * 500, "nested deeper than 20 levels"),
        ("a: " + "{x: " * 500, "nested deeper than 20 levels"),
        ("\n".join(f"{' ' * level}x:" for level in range(400)), "nested deeper than 20 levels"),
        ("a: [" + "1," * 60_000 + "]", "more than 20000 values"),
        ("a: " + "x" * 1_000_000, "x.yaml:1:1: larger than 1 MB"),
        (BOMB, "x.yaml:2:4: a YAML anchor ('b')"),
        ("a: " + "9" * 5000, "unknown key 'a'"),
        ("matrix: {train.seed: [" + "1, " * 19_000 + "]}", "x.yaml:1:22: expected 1 to 1000 values, got 19000"),
        ("tasks: [" + "cola, " * 19_000 + "]", "tasks: expected at most 1000 items"),
        ("tasks: [" + "".join(f"t{number}, " for number in range(19_000)) + "]", "unknown task 't0'"),
        (
            "tasks: [cola]\noverrides: {cola: {" + "".join(f"a{n}: 1, " for n in range(9_000)) + "}}",
            "unknown path 'a0'",
        ),
        (
            "search: {space: {" + "".join(f"train.a{n}: 1, " for n in range(9_000)) + "}}",
            "search.space.train.a0: expected a range",
        ),
        ("search: {space: {tuner.rank: {choice: [" + "1, " * 19_000 + "]}}}", "at most 1000 items"),
        ("registry: {name: '" + "{}" * 200_000 + "'}", "expected at most 200 letters"),
        ("model: {id: '" + "a/" * 200_000 + "'}", "expected at most 4096 letters"),
        ("\n".join(f"key{number}: 1" for number in range(9_000)), "x.yaml:1:1: unknown key 'key0'"),
        ("? '" + "k" * 100_000 + "'\n: 1", "unknown key"),
        ("'" + "k" * 100_000 + "': 1", "not YAML"),
    ],
)
def test_what_a_file_must_not_hold(text: str, message: str) -> None:
    found = refused(text)
    assert any(message in mistake for mistake in found), found[:5]
    assert len(found) <= 100


class TestFiles:
    """What is wrong with a file as a whole."""

    def test_a_missing_file_suggests_its_neighbour(self, tmp_path: Path) -> None:
        (tmp_path / "sweep.yaml").touch()
        with pytest.raises(SpecError, match=r"swep\.yaml: no such file; did you mean '.*/sweep\.yaml'\?"):
            load_spec(tmp_path / "swep.yaml")

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="cannot be read: Is a directory"):
            load_spec(tmp_path)

    def test_a_name_no_file_can_have(self) -> None:
        with pytest.raises(SpecError, match="cannot be read"):
            load_spec("a\0b")

    def test_bytes_that_are_not_utf8_are_told_with_their_place(self, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        file.write_bytes(b"a: 1\nb: caf\xe9\n")
        with pytest.raises(SpecError, match=r"x\.yaml:2:7: not UTF-8: byte 0xe9"):
            load_spec(file)

    def test_a_large_file_is_not_read_whole(self, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        with file.open("wb") as handle:
            handle.truncate(1 << 40)  # sparse: a terabyte that takes no room
        with pytest.raises(SpecError, match="larger than 1 MB"):
            load_spec(file)

    def test_a_byte_order_mark_and_windows_line_ends_are_fine(self, tmp_path: Path) -> None:
        file = tmp_path / "x.yaml"
        file.write_bytes(b"\xef\xbb\xbfname: 1\r\nbogus: 2\r\n")
        with pytest.raises(SpecError, match=r"x\.yaml:2:1: unknown key 'bogus'; known: apiVersion, kind, name, model"):
            load_spec(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-3", -3), ("+3", 3), ("0x1F", 31), ("0o17", 15),
        ("010", 10), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("-.inf", float("-inf")), ("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("1_000", "1_000"),
        ("e5", "e5"), ("1e", "1e"), (".", "."), ("-", "-"), ("<<", "<<"),
    ],
)  # fmt: skip
def test_plain_scalars_are_read_by_yaml_12(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert parse("a: '1e-5'\nb: \"true\"\nc: |\n  3\n", file="x").tree == {"a": "1e-5", "b": "true", "c": "3\n"}


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "model", "tasks", "data", "tuner", "train", "search", "x"]), _JSON))
def test_json_of_any_shape_is_a_spec_or_a_spec_error(tree: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        parse_spec(json.dumps(tree), file="x.json")


_SECTIONS = {
    "model": {"id": "a/b"},
    "tasks": ["cola"],
    "data": {"source": "hub"},
    "tuner": {"method": "qlora", "rank": 4},
    "train": {"epochs": 1},
    "search": {"trials": 2, "space": {"tuner.rank": {"choice": [1, 2]}, "tuner.alpha": {"uniform": [1, 2]}}},
    "overrides": {"cola": {"train.epochs": 3}},
    "matrix": {"train.seed": [1, 2]},
    "registry": {"name": "{task}"},
}


def _paths(tree: object, above: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    entries = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    return [path for key, value in entries for path in ((*above, key), *_paths(value, (*above, key)))]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_paths(_SECTIONS)), _JSON)
def test_anything_anywhere_in_a_good_spec_is_a_spec_or_a_spec_error(path: tuple[object, ...], value: object) -> None:
    tree = json.loads(json.dumps({"apiVersion": "tunery/v1", "kind": "Sweep", "name": "x", **_SECTIONS}))
    inner = tree
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    with contextlib.suppress(SpecError):
        parse_spec(json.dumps(tree), file="x.json")


@settings(max_examples=400, deadline=1000)
@given(st.text(max_size=200) | st.text(alphabet="ab:{}[],-&*!?|>'\"%@#~ \n\t0123e.", max_size=80))
def test_any_text_is_a_spec_error_and_soon(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text, file="x.yaml")


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=120))
def test_any_bytes_are_a_spec_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "bytes.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError):
        load_spec(file)


@settings(max_examples=200, deadline=None)
@given(_JSON)
def test_json_is_read_as_json_reads_it(tree: object) -> None:
    text = json.dumps(tree, ensure_ascii=False)
    try:
        found = parse(text, file="x").tree
    except SpecError:
        return  # control characters and the like: JSON allows more than a spec does
    assert found == tree
