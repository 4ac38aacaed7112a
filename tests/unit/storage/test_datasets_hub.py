"""The hub's reader, on folders laid out as hub repositories: the same code path without the network."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets import Fields, Row, read_hub
from storage.errors import DataError, HubUnreachableError, MissingSplitError, NotFetchedError, StorageError

FIELDS = Fields("sentence", None, "label", ("unacceptable", "acceptable"))

CARD = """---
configs:
- config_name: cola
  data_files:
  - {split: train, path: cola/train-*}
  - {split: validation, path: cola/validation-*}
dataset_info:
- config_name: cola
  features:
  - {name: sentence, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': unacceptable, '1': acceptable}}}
---
"""


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root = tmp_path / "repo"
    (root / "cola").mkdir(parents=True)
    (root / "README.md").write_text(CARD)
    for split, labels in (("train", [1, 0, 1]), ("validation", [1, -1])):
        table = pa.table({"sentence": [f"{split} {number}" for number in range(len(labels))], "label": labels})
        pq.write_table(table, root / "cola" / f"{split}-00000-of-00001.parquet")
    return str(root)


def test_a_split_of_a_configuration_is_read(repo: str) -> None:
    rows = read_hub(repo, "cola", "train", FIELDS)
    assert list(rows.rows) == [Row("train 0", None, 1.0), Row("train 1", None, 0.0), Row("train 2", None, 1.0)]
    assert rows.origin == f"hub:{repo}/cola/train"
    assert len(read_hub(repo, "cola", "train", FIELDS, limit=2).rows) == 2


def test_a_bad_row_is_named_or_skipped(repo: str) -> None:
    with pytest.raises(DataError, match=r"cola/validation:row 1: unknown label -1 in column 'label'"):
        read_hub(repo, "cola", "validation", FIELDS)
    rows = read_hub(repo, "cola", "validation", FIELDS, bad_rows="skip")
    assert (len(rows.rows), len(rows.skipped)) == (1, 1)


def test_a_split_that_is_not_there_and_a_column_that_is_not_there(repo: str) -> None:
    with pytest.raises(MissingSplitError, match=r"\(cola\) has no split 'test'"):
        read_hub(repo, "cola", "test", FIELDS)
    with pytest.raises(DataError, match=r"no column 'text'; there is: sentence, label"):
        read_hub(repo, "cola", "train", Fields("text", None, "label", FIELDS.labels))


def test_a_configuration_that_is_not_there(repo: str) -> None:
    with pytest.raises(StorageError, match=r"cannot load .* \(sst2\) from .*cola") as caught:
        read_hub(repo, "sst2", "train", FIELDS)
    assert not isinstance(caught.value, MissingSplitError)


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(HubUnreachableError, match=r"nyu-mll/glue \(cola\) cannot be fetched: .*data\.source: path"):
        read_hub("nyu-mll/glue", "cola", "train", FIELDS)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotFetchedError, match=r"nyu-mll/glue \(cola\) was not fetched to .*data\.source: path"):
        read_hub("nyu-mll/glue", "cola", "train", FIELDS)
