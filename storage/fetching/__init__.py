"""Models and data sets of a hub on this machine's disk: downloaded once, checked, and found again without a network.

    <HF_HUB_CACHE>/models--ORG--NAME/        the hub's own cache, which other programs share
        blobs/<hash>                         files by their hash;  <hash>.part one that is under way
        snapshots/<commit>/                  links to them: the folder a model is loaded from
        tunery/<commit>.json                 what was fetched: sizes and hashes;  tunery/refs/<revision> its commit
    <MODELSCOPE_CACHE>/models/ORG--NAME/     the same without blobs: files lie in snapshots/<commit>/

No heavy import: whether something is there is known without the hub's client.
"""

from __future__ import annotations

from storage.fetching.fetch import Outcome, base_folder, fetch, have
from storage.fetching.kept import Fetched, found
from storage.fetching.wanted import Source, Wanted, offline

__all__ = ["Fetched", "Outcome", "Source", "Wanted", "base_folder", "fetch", "found", "have", "offline"]
