from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets import Fields, Row, Rows, from_rows, read_path
from storage.errors import DataError, MissingSplitError

ONE = Fields("sentence", None, "label", ("unacceptable", "acceptable"))
PAIR = Fields("sentence1", "sentence2", "label", ())

ROWS = [
    Row("First, with a comma.", None, 1.0),
    Row('He said "no"\nand left.', None, 0.0),
    Row("Ünïcode 句子", None, 1.0),
]


def write(root: Path, suffix: str, rows: list[Row] = ROWS) -> Path:
    folder = root / "cola"
    folder.mkdir(exist_ok=True)
    path = folder / f"train.{suffix}"
    records = [{"sentence": row.text, "label": int(row.label), "idx": number} for number, row in enumerate(rows)]
    match suffix:
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
        case "jsonl":
            path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        case "csv":
            quoted = [(str(r["sentence"]).replace('"', '""'), r["label"]) for r in records]
            path.write_text("sentence,label\n" + "".join(f'"{text}",{label}\n' for text, label in quoted))
        case "tsv":
            path.write_text("label\tsentence\n" + "".join(f"{r['label']}\t{r['sentence']}\n" for r in records))
    return path


def read(root: Path, fields: Fields = ONE, **options: object) -> Rows:
    return read_path(root, "cola", "train", fields, **options)  # type: ignore[arg-type]  # options of the test at hand


def bad(root: Path, name: str, content: str | bytes, fields: Fields = ONE) -> str:
    """The message that a file with this content gives."""
    (root / "cola").mkdir(exist_ok=True)
    path = root / "cola" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read(root, fields)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix)
    rows = read(tmp_path)
    assert list(rows.rows) == ROWS
    assert rows.origin == str(path)
    assert rows.skipped == ()
    assert rows.fingerprint == from_rows(ROWS, "elsewhere").fingerprint


def test_a_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    rows = [Row('"Unbalanced, he said.', None, 1.0), Row("5'10\" tall", None, 0.0)]
    write(tmp_path, "tsv", rows)
    assert list(read(tmp_path).rows) == rows


def test_shards_as_the_hub_names_them_are_read_in_order(tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        write(tmp_path, "parquet", [row]).rename(tmp_path / "cola" / f"train-0000{number}-of-00003.parquet")
    assert list(read(tmp_path).rows) == ROWS


def test_pairs_and_values(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.csv").write_text("sentence1,sentence2,label\na,b,3.8\nc,d,5\n")
    assert list(read(tmp_path, PAIR).rows) == [Row("a", "b", 3.8), Row("c", "d", 5.0)]


@pytest.mark.parametrize(("label", "number"), [("acceptable", 1), ("unacceptable", 0), ("1", 1), (0, 0), (1.0, 1)])
def test_a_label_is_a_name_or_a_number(tmp_path: Path, label: object, number: int) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.jsonl").write_text(json.dumps({"sentence": "x", "label": label}))
    assert read(tmp_path).rows[0].label == number


@pytest.mark.parametrize("value", [5, "5", 5.0, "5.0"])
def test_names_that_are_numbers_are_names_in_every_kind_of_file(tmp_path: Path, value: object) -> None:
    (tmp_path / "cola").mkdir()
    stars = Fields("sentence", None, "label", tuple("12345"))
    (tmp_path / "cola" / "train.jsonl").write_text(json.dumps({"sentence": "x", "label": value}))
    assert read(tmp_path, stars).rows[0].label == 4
    (tmp_path / "cola" / "train.jsonl").unlink()
    (tmp_path / "cola" / "train.csv").write_text(f"sentence,label\nx,{value}\n")
    assert read(tmp_path, stars).rows[0].label == 4
    assert "unknown label '0' in column 'label'; known: 1, 2, 3, 4, 5" in bad(
        tmp_path, "train.csv", "sentence,label\nx,0\n", stars
    )


KNOWN = "known: 0 = unacceptable, 1 = acceptable"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"sentence": "x", "label": 2}', f"unknown label 2 in column 'label'; {KNOWN}"),
        ('{"sentence": "x", "label": -1}', f"unknown label -1 in column 'label'; {KNOWN}"),
        ('{"sentence": "x", "label": 0.5}', f"unknown label 0.5 in column 'label'; {KNOWN}"),
        ('{"sentence": "x", "label": NaN}', f"unknown label nan in column 'label'; {KNOWN}"),
        ('{"sentence": "x", "label": true}', f"unknown label True in column 'label'; {KNOWN}"),
        (
            '{"sentence": "x", "label": "aceptable"}',
            f"unknown label 'aceptable' in column 'label'; did you mean 'acceptable'? {KNOWN}",
        ),
        ('{"sentence": "x", "label": null}', f"column 'label' has no label; {KNOWN}"),
        ('{"sentence": "x"}', "no column 'label'; there is: sentence"),
        ('{"text": "x", "label": 1}', "no column 'sentence'; there is: text, label"),
        ('{"sentence": null, "label": 1}', "column 'sentence' has no text"),
        ('{"sentence": "  ", "label": 1}', "column 'sentence' is empty"),
        ('{"sentence": 7, "label": 1}', "column 'sentence' is not text: got 7 (int)"),
        ('{"sentence": "\\ud800", "label": 1}', "column 'sentence' is not valid Unicode"),
        ('{"sentence": "x", "label": 1', "not JSON: Expecting ',' delimiter"),
        ("[1, 2]", "not a JSON object: got '[1, 2]'"),
    ],
)
def test_a_bad_json_line_is_named_or_skipped(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "cola" / "train.jsonl"
    content = f'{{"sentence": "good", "label": 1}}\n\n{line}\n{{"sentence": "too", "label": 0}}\n'
    assert bad(tmp_path, "train.jsonl", content).startswith(f"{path}:3: {why}")
    rows = read(tmp_path, bad_rows="skip")
    assert [row.text for row in rows.rows] == ["good", "too"]
    assert len(rows.skipped) == 1
    assert rows.skipped[0].startswith(f"{path}:3: {why}")


@pytest.mark.parametrize(
    ("value", "got"), [("NaN", "nan"), ('"high"', "'high'"), ("Infinity", "inf"), ("true", "True")]
)
def test_a_value_must_be_a_finite_number(tmp_path: Path, value: str, got: str) -> None:
    line = f'{{"sentence1": "a", "sentence2": "b", "label": {value}}}'
    assert f"train.jsonl:1: column 'label' is no finite number: got {got}" in bad(tmp_path, "train.jsonl", line, PAIR)


def test_a_csv_row_is_named_by_the_line_it_begins_on(tmp_path: Path) -> None:
    content = 'sentence,label\n"two\nlines",1\nx,acceptible\n'
    message = bad(tmp_path, "train.csv", content)
    assert "train.csv:4: unknown label 'acceptible'" in message
    assert "did you mean 'acceptable'?" in message
    assert "data.bad_rows: skip" in message


def test_a_csv_row_of_another_width_or_bad_quoting_is_a_bad_row(tmp_path: Path) -> None:
    content = 'sentence,label\nHello, world,1\n"a" b,0\ngood,1\n'
    assert "train.csv:2: 3 cells, the header has 2: sentence, label" in bad(tmp_path, "train.csv", content)
    rows = read(tmp_path, bad_rows="skip")
    assert [row.text for row in rows.rows] == ["good"]
    assert [line.split(": ")[0].rpartition(":")[2] for line in rows.skipped] == ["2", "3"]


def test_an_open_quote_is_never_skipped_since_it_swallows_the_rest(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.csv").write_text('sentence,label\ngood,1\n"open,0\nlost,1\n')
    with pytest.raises(DataError, match=r"train.csv:3: the quote that opens here is never closed"):
        read(tmp_path, bad_rows="skip")


def test_a_missing_column_names_the_columns_there_are(tmp_path: Path) -> None:
    message = "no column 'sentence'; there is: text, label"
    assert f"train.csv:1: {message}" in bad(tmp_path, "train.csv", "text,label\nx,1\n")
    (tmp_path / "cola" / "train.csv").unlink()
    pq.write_table(pa.table({"text": ["x"], "label": [1]}), tmp_path / "cola" / "train.parquet")
    with pytest.raises(DataError, match=f"train.parquet: {message}"):
        read(tmp_path)


def test_a_bad_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    texts = ["x"] * 5000
    labels: list[int | None] = [1] * 5000
    labels[4321] = None
    pq.write_table(pa.table({"sentence": texts, "label": labels}), tmp_path / "cola" / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet:row 4321: column 'label' has no label"):
        read(tmp_path)


def test_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    assert "train.parquet: not a readable Parquet file" in bad(tmp_path, "train.parquet", "PAR1 no")
    (tmp_path / "cola" / "train.parquet").unlink()
    latin = "sentence,label\nfine,1\ncafé,1\n".encode("latin-1")
    assert "train.csv:3: not UTF-8: " in bad(tmp_path, "train.csv", latin)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.csv").write_bytes(b"\xef\xbb\xbfsentence,label\r\nx,1\r\n")
    assert list(read(tmp_path).rows) == [Row("x", None, 1.0)]


def test_only_a_newline_ends_a_json_line(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.jsonl").write_text('{"sentence": "a\u2028b", "label": 1}\n')
    assert read(tmp_path).rows[0].text == "a\u2028b"


@pytest.mark.parametrize("content", ["", "sentence,label\n"])
def test_an_empty_split_is_an_error(tmp_path: Path, content: str) -> None:
    message = bad(tmp_path, "train.csv", content)
    assert "has no rows" in message or "no column 'sentence', 'label'; there is: " in message


def test_a_split_of_bad_rows_only_is_an_error_even_when_they_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "cola").mkdir()
    (tmp_path / "cola" / "train.csv").write_text("sentence,label\nx,9\ny,8\n")
    with pytest.raises(
        DataError, match=r"has no rows: all 2 rows are bad, the first one: .*train.csv:2: unknown label"
    ):
        read(tmp_path, bad_rows="skip")


def test_a_missing_file_names_the_folder_and_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "csv").rename(tmp_path / "cola" / "training.csv")
    with pytest.raises(
        MissingSplitError, match=r"no train.parquet, .csv, .tsv or .jsonl in .*/cola; .* has: training.csv"
    ):
        read(tmp_path)
    with pytest.raises(MissingSplitError, match=rf"in {tmp_path}/x/cola; {tmp_path} has: cola"):
        read(tmp_path / "x")


def test_two_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "csv")
    write(tmp_path, "jsonl")
    with pytest.raises(DataError, match=r"train.csv and train.jsonl: which one is meant"):
        read(tmp_path)


def numbered(count: int) -> list[Row]:
    return [Row(f"sentence {number}", None, float(number % 2)) for number in range(count)]


def test_samples_are_seeded_nested_and_in_order(tmp_path: Path) -> None:
    write(tmp_path, "jsonl", numbered(500))
    sizes = [1, 10, 100, 499, 500, 900]
    samples = [read(tmp_path, limit=size, seed=3).rows for size in sizes]
    assert [len(sample) for sample in samples] == [1, 10, 100, 499, 500, 500]
    for smaller, larger in itertools.pairwise(samples):
        assert set(smaller) <= set(larger)
        assert list(smaller) == [row for row in larger if row in set(smaller)]
    assert set(samples[2]) != set(numbered(100)), "the first rows are no sample"
    assert samples[2] == read(tmp_path, limit=100, seed=3).rows
    assert samples[2] != read(tmp_path, limit=100, seed=4).rows


def test_the_fingerprint_is_of_the_content() -> None:
    base = from_rows([("a", "b", 1.0)], "x").fingerprint
    assert from_rows([("a", "b", 1.0)], "y").fingerprint == base
    others: list[list[tuple[str, str | None, float]]] = [
        [("a", None, 1.0)],
        [("ab", "", 1.0)],
        [("a", "b", 0.0)],
        [("a", "b", 1.0)] * 2,
        [("b", "a", 1.0)],
    ]
    fingerprints = {from_rows(rows, "x").fingerprint for rows in others}
    assert len(fingerprints) == len(others)
    assert base not in fingerprints
