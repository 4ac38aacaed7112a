"""The desk as an actor, and its methods as plain typed calls from other processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import ray

from tunery.cluster.desk import Desk
from tunery.cluster.messages import Ended, Ending, Event, Events, Orders, PackMessage, Report, SeatName, SeatOrder
from tunery.cluster.nodes import on_this_node

_MOST_WAITING = 10_000
"""Calls the actor holds at once: every waiting seat is one."""


class RemoteDesk:
    """A handle that can be sent along; see `Desk` for each method. All but `visit` block until it has answered."""

    def __init__(self) -> None:
        # Ray's own types do not survive `options` on an actor of coroutines.
        actor: Any = ray.remote(Desk)
        placed = {"num_cpus": 0, "scheduling_strategy": on_this_node()}
        self._desk: Any = actor.options(max_concurrency=_MOST_WAITING, **placed).remote()

    def admit(self, study: str, *, base: str, limit: int) -> bool:
        admitted: bool = ray.get(self._desk.admit.remote(study, base=base, limit=limit))
        return admitted

    def join(self, order: SeatOrder) -> None:
        ray.get(self._desk.join.remote(order))

    def next_report(self, name: SeatName, after: int) -> Report | Ended:
        answer: Report | Ended = ray.get(self._desk.next_report.remote(name, after))
        return answer

    def leave(self, name: SeatName, ending: Ending, reason: str = "") -> None:
        ray.get(self._desk.leave.remote(name, ending, reason))

    def open_pack(self, pack: str, *, base: str, capacity: int) -> int:
        incarnation: int = ray.get(self._desk.open_pack.remote(pack, base=base, capacity=capacity))
        return incarnation

    def lose_pack(self, pack: str) -> None:
        ray.get(self._desk.lose_pack.remote(pack))

    def visit(self, pack: str, incarnation: int, messages: Sequence[PackMessage], *, wait_s: float) -> Future[Orders]:
        answer: Future[Orders] = self._desk.visit.remote(pack, incarnation, messages, wait_s=wait_s).future()
        return answer

    def events(self, after: int, *, wait_s: float) -> Events:
        events: Events = ray.get(self._desk.events.remote(after, wait_s=wait_s))
        return events

    def recall(self, events: Sequence[Event]) -> None:
        ray.get(self._desk.recall.remote(events))

    def give_up_base(self, base: str, reason: str) -> None:
        ray.get(self._desk.give_up_base.remote(base, reason))

    def abandon(self, study: str) -> None:
        ray.get(self._desk.abandon.remote(study))

    def wants(self, base: str) -> bool:
        wanted: bool = ray.get(self._desk.wants.remote(base))
        return wanted

    def release(self, base: str) -> None:
        ray.get(self._desk.release.remote(base))

    def close(self) -> frozenset[str]:
        packs: frozenset[str] = ray.get(self._desk.close.remote())
        return packs
