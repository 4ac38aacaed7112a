"""Data sets in a folder: `<root>/<folder>/<split>.{parquet,csv,tsv,jsonl}`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from storage.datasets.rows import BadRows, Fields, Record, Rows, checked
from storage.errors import DataError, MissingSplitError

if TYPE_CHECKING:
    from _csv import Reader

# A cell may hold a whole document; the module's own limit of 128 KiB is for hand-made tables.
csv.field_size_limit(2**27)


def read_path(
    root: Path,
    folder: str,
    split: str,
    fields: Fields,
    *,
    bad_rows: BadRows = "fail",
    limit: int | None = None,
    seed: int = 0,
) -> Rows:
    """The rows of one split; of `limit` given, a seeded sample in the file's order.

    MissingSplitError where there is no such file; DataError for a missing column, a row that cannot be used (named by
    file and line) unless `bad_rows` is "skip", and where no row is left.
    """
    files = _locate(root / folder, split)

    def records() -> Iterator[Record]:
        for file in files:
            yield from _READERS[file.suffix](file, fields)

    origin = str(files[0]) if len(files) == 1 else f"{files[0].parent}/{split}-*.parquet"
    return checked(records(), fields, origin, bad_rows=bad_rows, limit=limit, seed=seed)


def table_records(table: pa.Table, fields: Fields, place: str) -> Iterator[Record]:
    """The records of an Arrow table, numbered from 0. DataError where a column is missing."""
    _require(fields, table.column_names, place)
    first = 0
    for batch in table.select(list(fields.columns)).to_batches(max_chunksize=4096):
        for number, values in enumerate(batch.to_pylist(), start=first):
            yield Record(f"{place}:row {number}", values)
        first += batch.num_rows


def _locate(folder: Path, split: str) -> list[Path]:
    candidates = [folder / f"{split}{suffix}" for suffix in _READERS]
    found = [path for path in candidates if path.is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has {' and '.join(path.name for path in found)}: which one is meant? Keep one")
    # What a download from the hub looks like: train-00000-of-00002.parquet.
    shards = sorted(folder.glob(f"{split}-*-of-*.parquet")) if folder.is_dir() else []
    if found or shards:
        return found or shards
    near = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    there = sorted(entry.name for entry in near.iterdir())
    raise MissingSplitError(
        f"no {split}.parquet, .csv, .tsv or .jsonl in {folder}; "
        f"{near} has: {', '.join(there[:20]) or 'nothing'}{', ...' if len(there) > 20 else ''}"
    )


def _require(fields: Fields, columns: list[str], place: str) -> None:
    missing = [column for column in fields.columns if column not in columns]
    if missing:
        raise DataError(f"{place}: no column {', '.join(map(repr, missing))}; there is: {', '.join(columns)}")
    twice = [column for column in fields.columns if columns.count(column) > 1]
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} is there {columns.count(twice[0])} times")


def _parquet(file: Path, fields: Fields) -> Iterator[Record]:
    try:
        # The columns are asked for after the schema is seen, so that a missing one is reported as ours.
        _require(fields, pq.read_schema(file).names, str(file))
        table = pq.read_table(file, columns=list(fields.columns))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable Parquet file: {error}") from error
    yield from table_records(table, fields, str(file))


def _csv(file: Path, fields: Fields) -> Iterator[Record]:
    return _table(file, fields, csv.reader(_lines(file), strict=True))


def _tsv(file: Path, fields: Fields) -> Iterator[Record]:
    # Quotes in TSV files are text: GLUE's own have single ones.
    return _table(file, fields, csv.reader(_lines(file), delimiter="\t", quoting=csv.QUOTE_NONE))


def _table(file: Path, fields: Fields, reader: Reader) -> Iterator[Record]:
    header = next(reader, [])
    _require(fields, header, f"{file}:1")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                # Everything after that quote was taken for one cell, so this is never a row to skip.
                raise DataError(f"{file}:{line}: the quote that opens here is never closed") from error
            yield Record(f"{file}:{line}", str(error))
            continue
        if not cells:
            continue
        values: Mapping[str, object] | str = dict(zip_longest(header, cells))
        if len(cells) != len(header):
            values = f"{len(cells)} cells, the header has {len(header)}: {', '.join(header)}"
        yield Record(f"{file}:{line}", values)


def _jsonl(file: Path, _: Fields) -> Iterator[Record]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Record(f"{file}:{number}", f"not JSON: {error}")
            continue
        if not isinstance(values, dict):
            values = f"not a JSON object: got {line.strip()[:60]!r}"
        yield Record(f"{file}:{number}", values)


def _lines(file: Path) -> Iterator[str]:
    """The lines, each with its end. Only \\n ends one: Unicode has other line ends, which occur inside texts."""
    with file.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{file}:{number}: not UTF-8: {error.reason} at byte {error.start + 1}") from error


_READERS: Mapping[str, Callable[[Path, Fields], Iterator[Record]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
}
