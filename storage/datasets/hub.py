"""Data sets of the Hugging Face hub."""

from __future__ import annotations

from storage.datasets.path import table_records
from storage.datasets.rows import BadRows, Fields, Rows, checked
from storage.errors import MissingSplitError, StorageError


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
    """The rows of one split of a hub data set (or of a folder laid out as one).

    StorageError where it cannot be had, MissingSplitError where it has no such split; otherwise as `read_path`.
    """
    # Imported here: it takes a second or two, and the other sources do without it.
    import datasets

    name = f"{repo} ({config})" if config else repo
    try:
        loaded = datasets.load_dataset(repo, config, split=split, revision=revision)
    except ValueError as error:
        if "split" in str(error).lower():
            raise MissingSplitError(f"{name} has no split {split!r}: {error}") from error
        raise StorageError(f"cannot load {name} from the hub: {error}") from error
    except Exception as error:  # the hub's client raises errors of several HTTP libraries, with no common base
        raise StorageError(
            f"cannot load {name} from the hub: {_first_line(error)}. Without a network, download it elsewhere and "
            f"set data.source: path and data.root to its folder"
        ) from error
    table = loaded.with_format("arrow")[:]
    origin = f"hub:{repo}{f'/{config}' if config else ''}/{split}{f'@{revision}' if revision else ''}"
    return checked(table_records(table, fields, origin), fields, origin, bad_rows=bad_rows, limit=limit, seed=seed)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
