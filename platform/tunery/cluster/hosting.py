"""The packs of a run, seen from its driver: started together, each watched for its end, sent home by base."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import ray

from tunery.cluster.jobs import done, pack_hosts
from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.remote_desk import RemoteDesk
from tunery.runs import RunFolder

log = logging.getLogger(__name__)

AHEAD = 1
"""Trials that may be begun for each pack beyond its places. One that waits at the desk takes a place at the pack's next
visit; without it the place stays empty for as long as Tune takes to begin a trial. More would draw from older results.
"""
STOP_GRACE_S = 60.0
"""Within which the packs write their last checkpoints when the run is asked to stop."""


@dataclass
class Hosting:
    """What is under way of a run's packs."""

    desk: RemoteDesk
    _hosting: dict[ray.ObjectRef[Any], PackOrder] = field(default_factory=dict)
    _places: Counter[str] = field(default_factory=Counter)
    _released: set[str] = field(default_factory=set)
    """Bases of which all studies have ended."""

    def start(self, packs: Sequence[tuple[PackOrder, Resources]], folder: RunFolder) -> None:
        """Start each with its share of the Ray that was started or joined."""
        hosts = pack_hosts(len(packs))
        for order, share in packs:
            self._places[order.base_key] += order.capacity + AHEAD
            self._hosting[hosts.host.remote(order, share, folder.root / "train")] = order

    def places(self, base: str) -> int:
        """Trials of a base that may be under way at once, whatever has become of its packs."""
        return self._places[base]

    def look_after(self, needed: AbstractSet[str]) -> None:
        """Take in which packs have ended, and send those home whose base is not `needed` any more: where devices are
        few, another base's packs wait for theirs.
        """
        for ref in done(self._hosting):
            self._ended(self._hosting.pop(ref), ref)
        for base in {order.base_key for order in self._hosting.values()} - needed - self._released:
            self._released.add(base)
            self.desk.release(base)

    def send_home(self) -> None:
        """And wait for those that have seats' checkpoints to write; the others end with the run."""
        there = self.desk.close()
        if going := [ref for ref, order in self._hosting.items() if order.pack in there]:
            ray.wait(going, num_returns=len(going), timeout=STOP_GRACE_S)

    def _ended(self, order: PackOrder, ref: ray.ObjectRef[Any]) -> None:
        try:
            why = ray.get(ref)
        except Exception as error:
            log.exception("the host of %s died", order.pack)
            why = str(error)
            self.desk.lose_pack(order.pack)
        if not why:
            return  # its base was released
        log.error("pack %s was given up: %s", order.pack, why)
        if not any(other.base_key == order.base_key for other in self._hosting.values()):
            self.desk.give_up_base(order.base_key, why)
