"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from functools import cache
from typing import Any

from storage.datasets.path import table_records
from storage.datasets.rows import BadRows, Fields, Rows, checked
from storage.errors import HubUnreachableError, MissingSplitError, NotFetchedError, StorageError
from storage.fetching import Wanted, have
from storage.models import is_folder


def read_hub(
    repo: str,
    config: str | None,
    split: str,
    fields: Fields,
    *,
    revision: str | None = None,
    bad_rows: BadRows = "fail",
    limit: int | None = None,
    seed: int = 0,
) -> Rows:
    """The rows of one split of a hub data set (or of a folder laid out as one), whose files are fetched first.

    StorageError where it cannot be had, MissingSplitError where it has no such split; otherwise as `read_path`.
    """
    # Imported here: it takes a second or two, and the other sources do without it.
    import datasets

    name = f"{repo} ({config})" if config else repo
    folder, files = (repo, None) if is_folder(repo) else _fetched(repo, config, revision)
    try:
        loaded = datasets.load_dataset(folder, config, data_files=files, split=split)
    except ValueError as error:
        if "split" in str(error).lower():
            raise MissingSplitError(f"{name} has no split {split!r}: {error}") from error
        raise StorageError(f"cannot load {name} from {folder}: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot load {name} from {folder}: {type(error).__name__}: {error}") from error
    table = loaded.with_format("arrow")[:]
    origin = f"hub:{repo}{f'/{config}' if config else ''}/{split}{f'@{revision}' if revision else ''}"
    return checked(table_records(table, fields, origin), fields, origin, bad_rows=bad_rows, limit=limit, seed=seed)


@cache  # a process sees one commit, whatever is pushed between two splits
def _fetched(repo: str, config: str | None, revision: str | None) -> tuple[str, dict[str, Any]]:
    """The folder, and split -> files of it."""
    try:
        there = have(Wanted("data", repo, revision, config=config))
    except NotFetchedError as error:
        raise NotFetchedError(f"{error}: fetch it where there is a network, or set data.source: path") from error
    except HubUnreachableError as error:
        raise HubUnreachableError(
            f"{error}; or download it elsewhere, and set data.source: path and data.root to its folder"
        ) from error
    splits = {split: [str(there.folder / path) for path in paths] for split, paths in there.splits.items()}
    return str(there.folder), splits
