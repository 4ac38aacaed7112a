"""Where a run keeps its checkpoints: settled when it first starts, and looked at whenever it does."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace

from storage.checkpoints import CheckpointStore
from storage.stores import Address, Place, check
from tunery.plan import Plan
from tunery.profile import Profile
from tunery.runs import RunFolder

_DIGITS = 8


def settle(folder: RunFolder, plan: Plan, profile: Profile) -> None:
    """The profile's store from now on, for a run that has no checkpoints yet; and all that it begins with is there.

    storage.errors.StorageError, which says what to do, where the store cannot be used: told before anything is trained.
    """
    place = _place(folder, profile)
    if place == folder.root:
        return
    check(place / "probe")
    folder.keep_store(place)
    if plan.begin is not None:
        _bring(folder)


def _place(folder: RunFolder, profile: Profile) -> Place:
    kept = folder.store
    if isinstance(kept, Address):
        # The bucket is the run's; how it is reached may have changed: a server has moved, a certificate was renewed.
        known = profile.place("")
        same = isinstance(known, Address) and kept.url.startswith(known.url)
        return replace(kept, settings=known.settings) if same and isinstance(known, Address) else kept
    if kept != folder.root or (folder.root / "checkpoints").exists():
        return kept
    return profile.place(_name(folder.run_id, profile)) or folder.root


def _name(run_id: str, profile: Profile) -> str:
    """The run's, and whose: a spec has the same id everywhere, and is another run where its studies are others."""
    url = profile.study_storage_url
    # A database in a file is one machine's: what another one calls by the same path is not the same.
    of = uuid.uuid4().hex if url.startswith("sqlite:") else hashlib.sha256(url.encode()).hexdigest()
    return f"{run_id}-{of[:_DIGITS]}"


def _bring(folder: RunFolder) -> None:
    """The client's copy of what the trials begin with, to where every node sees it."""
    here, there = CheckpointStore(folder.root / "begin").newest(), CheckpointStore(folder.begin)
    if here is not None and there.newest() is None:
        there.save(here.step, here.files, metrics={}, best=False)
