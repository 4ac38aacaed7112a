"""How many packs a sweep gets and what each takes of the cluster. Pure, and loads no Ray: a plan is shown with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunery.plan import Plan, Study
from tunery.spec import Resources as Wanted

PROCESS_BYTES = 1 << 30
"""What a pack's process takes beside its base and seats: libraries, compiled kernels, activations."""
MEMORY_SHARE = 0.5
"""Of the memory there is, what packs may plan to take that nobody has asked for by number."""


@dataclass(frozen=True)
class Node:
    """What one machine has to give."""

    cpus: float
    gpus: float = 0


@dataclass(frozen=True)
class Room:
    """What a cluster has."""

    nodes: tuple[Node, ...]
    memory: int
    """Bytes."""

    @property
    def cpus(self) -> int:
        """Of all nodes."""
        return int(sum(node.cpus for node in self.nodes))

    @property
    def largest(self) -> int:
        """CPUs of the node with most of them."""
        return int(max((node.cpus for node in self.nodes), default=0))

    @property
    def gpus(self) -> int:
        """Of all nodes."""
        return int(sum(node.gpus for node in self.nodes))


@dataclass(frozen=True)
class Resources:
    """What a pack reserves."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float


@dataclass(frozen=True)
class Placement:
    """What is made of it."""

    packs: int
    """Of each base."""
    at_once: int
    """Packs of all bases that run at the same time; those without room wait until another base's go home."""
    to_spare: int
    """Packs of which fewer would leave each more memory: not where other bases' packs would come in their place."""
    capacity: int
    """Most seats of a pack."""
    threads: int
    """Of torch in a worker, on a CPU."""
    memory: Mapping[str, int]
    """Base -> bytes that a worker of its packs may take of the machine's."""
    share: Resources


def by_base(plan: Plan) -> dict[str, list[Study]]:
    """The studies that can share packs."""
    bases: dict[str, list[Study]] = {}
    for study in plan.studies:
        bases.setdefault(base_key(study), []).append(study)
    return bases


def base_key(study: Study) -> str:
    """Studies with the same key can share a pack."""
    model, tuner = study.model, study.tuner
    kept = f"{tuner.quantisation}, dequantised once" if tuner.dequantised_once else tuner.quantisation
    trained = "|trained" if tuner.trains_base else f"|beside, {tuner.kept_bytes}" if tuner.trains_beside else ""
    return f"{model.name}@{model.revision or ''}|{kept}|{model.dtype}{trained}"


def place_plan(plan: Plan, room: Room) -> Placement:
    """The packs of a plan."""
    bases = by_base(plan)
    return place(
        plan.spec.resources,
        room,
        bases={base: plan.only({study.name for study in studies}).pack_bytes for base, studies in bases.items()},
        trials=max(sum(study.search.trials for study in studies) for studies in bases.values()),
    )


def place(wanted: Wanted, room: Room, *, bases: Mapping[str, int | None], trials: int) -> Placement:
    """The packs for bases with at most `trials` trials each.

    `packs: auto` is one for every `cpus_per_worker` cores, as long as each has a trial and their memory is small beside
    the machine's: threads of one pack wait for each other, packs do not. On GPUs it is as many as there are GPUs for.
    Where those of one base want more cores than there are, each gets less; where those of all bases do, some bases
    wait. Memory is shared by need among those that run: a base whose own weights are trained takes several times what a
    frozen one does.

    Args:
        wanted: what the spec asks for.
        room: what there is.
        bases: of each its key, and the bytes of a worker's base and seats; None where they are not known.
        trials: the most that a base has.
    """
    needs = _needs(bases)
    packs = wanted.packs if wanted.packs != "auto" else _most(wanted, room, bases=len(bases), needs=needs)
    if wanted.packs == "auto":
        packs = min(packs, trials)
    at_once = _at_once(wanted, room, packs=packs, bases=len(bases))
    workers = at_once * wanted.workers
    shares = needs or dict.fromkeys(bases, 1)
    return Placement(
        packs=packs,
        at_once=at_once,
        to_spare=packs if len(bases) == 1 else 1,
        # Few trials are dealt out evenly: the first pack that comes by would take them all.
        capacity=min(wanted.seats, math.ceil(trials / packs)),
        threads=max(1, min(room.cpus // workers, room.largest)),
        memory={base: _memory(room, base, shares, packs=packs, at_once=at_once) // wanted.workers for base in bases},
        share=_share(wanted, room, workers),
    )


def workers_on(nodes: Sequence[Node], wanted: Resources) -> int:
    """As many workers as nodes can hold, if nothing else is there."""
    return sum(
        min(int(has / need + 1e-6) for has, need in _needed(node, wanted.cpus_per_worker, wanted.gpus_per_worker))
        for node in nodes
    )


def _needed(node: Node, cpus: float, gpus: float) -> list[tuple[float, float]]:
    """Of each resource that a worker takes, what the node has and what the worker needs."""
    return [(has, need) for has, need in ((node.cpus, cpus), (node.gpus, gpus)) if need > 0]


def _at_once(wanted: Wanted, room: Room, *, packs: int, bases: int) -> int:
    """Packs that run at the same time: all, or as many as find the devices (or without any the CPUs) they ask for.

    Those of one base in any case: they share its trials, so they do with fewer CPUs rather than wait for each other.
    """
    cpus = 0 if wanted.gpus_per_worker else wanted.cpus_per_worker
    found = workers_on(room.nodes, Resources(wanted.workers, cpus, wanted.gpus_per_worker)) // wanted.workers
    return min(packs * bases, max(packs, found))


def _share(wanted: Wanted, room: Room, workers: int) -> Resources:
    """What each of so many workers reserves: what was asked for, or the most that lets all of them find a node.

    Where devices are too few for all of them, those that have one. Where none has (a cluster whose nodes come when they
    are needed has none yet), what was asked for.
    """
    asked = Resources(wanted.workers, wanted.cpus_per_worker, wanted.gpus_per_worker)
    if wanted.gpus_per_worker:
        workers = min(workers, sum(int(node.gpus // wanted.gpus_per_worker) for node in room.nodes))
    parts = {node.cpus / part for node in room.nodes for part in range(1, workers + 1)}
    fitting = {part for part in parts if 0 < part < asked.cpus_per_worker}
    for cpus in (asked.cpus_per_worker, *sorted(fitting, reverse=True)):
        # Ray counts in ten-thousandths: shares that are rounded up would not all fit.
        share = Resources(wanted.workers, math.floor(cpus * 1e4) / 1e4, wanted.gpus_per_worker)
        if workers_on(room.nodes, share) >= workers:
            return share
    return asked


def _memory(room: Room, base: str, shares: Mapping[str, int], *, packs: int, at_once: int) -> int:
    """Bytes for one pack of a base, beside those that can run with it and take most: which do is not known before."""
    others = [share for other, share in shares.items() for _ in range(packs - (other == base))]
    return room.memory * shares[base] // (shares[base] + sum(sorted(others, reverse=True)[: at_once - 1]))


def _needs(bases: Mapping[str, int | None]) -> dict[str, int]:
    """Bytes of a worker of each base; empty where some are not known."""
    known = {base: size + PROCESS_BYTES for base, size in bases.items() if size is not None}
    return known if len(known) == len(bases) else {}


def _most(wanted: Wanted, room: Room, *, bases: int, needs: Mapping[str, int]) -> int:
    """As many packs of each base as there is room for; at least one."""
    workers = bases * wanted.workers
    if wanted.gpus_per_worker:
        return max(1, room.gpus // (workers * wanted.gpus_per_worker))
    if not needs:
        return 1  # of unknown size, it may take all the memory there is
    cores = room.cpus // (workers * wanted.cpus_per_worker)
    fits = int(MEMORY_SHARE * room.memory) // (wanted.workers * sum(needs.values()))
    return max(1, min(cores, fits))
