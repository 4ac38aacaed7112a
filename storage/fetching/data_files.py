"""Which files of a data set's repository a configuration has, by the library that reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import datasets

from storage.errors import FetchError
from storage.fetching.wanted import Wanted

_DESCRIBING = ("README.md", ".huggingface.yaml", "dataset_infos.json")
"""What says how the files are read, where it is there."""


def data_files(wanted: Wanted, commit: str, names: Collection[str]) -> tuple[list[str], Mapping[str, tuple[str, ...]]]:
    """The files to fetch, and split -> those of it. FetchError for a configuration that there is not."""
    try:
        builder = datasets.load_dataset_builder(wanted.id, wanted.config, revision=commit)
    except (ValueError, OSError) as error:
        raise FetchError(f"{wanted.name} cannot be read: {str(error).strip().splitlines()[0]}") from error
    root = f"hf://datasets/{wanted.id}@{commit}/"
    splits: dict[str, tuple[str, ...]] = {}
    for split, files in (builder.config.data_files or {}).items():
        elsewhere = [file for file in files if not file.startswith(root)]
        if elsewhere:
            raise FetchError(f"{wanted.name}: {elsewhere[0]} is not in the repository itself: it cannot be fetched")
        splits[str(split)] = tuple(file.removeprefix(root) for file in files)
    chosen = {file for files in splits.values() for file in files}
    if not chosen:
        raise FetchError(f"{wanted.name} has no files of rows")
    return sorted({*chosen, *(name for name in _DESCRIBING if name in names)}), splits
