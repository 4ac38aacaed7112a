"""What a hub says of a repository, and which of its files a model needs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from storage.errors import FetchError
from storage.fetching.wanted import Wanted

_DESCRIBING = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab")
"""Ends of the names of a configuration's and a tokenizer's files."""
_SHARD = r"-\d+-of-\d+"
_WEIGHTS = (
    r"model\.safetensors",
    rf"model{_SHARD}\.safetensors",
    r"pytorch_model\.bin",
    rf"pytorch_model{_SHARD}\.bin",
)
"""In the order in which they are preferred; a repository may have its weights in several of these forms."""


@dataclass(frozen=True)
class Remote:
    """A file of a repository."""

    size: int
    hash: str
    """As in `Kept`."""


class Hub(Protocol):
    """Where repositories are. Errors come out as those of `storage.errors`."""

    def commit(self, wanted: Wanted) -> str:
        """What the revision is now."""

    def files(self, wanted: Wanted, commit: str) -> Mapping[str, Remote]:
        """Path -> file."""

    def url(self, wanted: Wanted, commit: str, path: str) -> str:
        """Where a file is downloaded from."""

    def headers(self) -> Mapping[str, str]:
        """Of every request: the token, where there is one."""

    def explain(self, wanted: Wanted, status: int, code: str) -> FetchError:
        """An answer that is no file; `code` is the hub's own word for why."""

    def place(self, wanted: Wanted, commit: str, path: str, remote: Remote) -> Path:
        """Where the file is downloaded to."""

    def link(self, wanted: Wanted, commit: str, path: str) -> None:
        """Have the downloaded file appear in the snapshot's folder."""


def model_files(names: Collection[str], wanted: Wanted) -> list[str]:
    """The files that a model is loaded from: its weights in one form, what describes them, the tokenizer.

    FetchError where there is no such model.
    """
    if "config.json" not in names:
        raise FetchError(f"{wanted.name} is no model of transformers: it has no config.json; it has: {_listed(names)}")
    weights = next((found for form in _WEIGHTS if (found := [n for n in names if re.fullmatch(form, n)])), [])
    if not weights:
        raise FetchError(
            f"{wanted.name} has no weights that can be loaded (model.safetensors, or its shards); "
            f"it has: {_listed(names)}"
        )
    ends = weights[0].rpartition(".")[2]
    described = [
        name
        for name in names
        # Sub-folders hold other forms of the same model.
        if ("/" not in name or name.startswith("additional_chat_templates/"))
        and name.endswith(_DESCRIBING)
        and not (name.endswith(".index.json") and f".{ends}.index" not in name)
    ]
    return sorted({*weights, *described})


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:15]) + (", ..." if len(shown) > 15 else "") if shown else "nothing"
