"""A cluster's shape, settled before anything is started: its database, its size, its ports, what each node may use."""

from __future__ import annotations

from random import Random

from tunery.errors import ConflictError
from tunery.here import postgres
from tunery.here.kept import Kept
from tunery.here.layout import Layout
from tunery.here.part import Part, Say
from tunery.here.parts import port_names
from tunery.here.ports import choose, is_free
from tunery.here.share import Share, free_memory, shares, usable_cpus
from tunery.here.store import Store, agreed


def sized(kept: Kept | None, workers: int | None, cpus: int | None, store: Store | None = None) -> Kept | None:
    """The cluster there is, in the size that is asked for. ConflictError where it is up in another one, or has another
    store, or reaches it in another way."""
    if kept is None:
        return None
    running = any(each.lives for each in kept.processes.values())
    kept = kept.model_copy(update={"store": agreed(kept.store, store, running=running)})
    wanted = {"workers": kept.workers if workers is None else workers, "cpus": kept.cpus if cpus is None else cpus}
    if wanted == {"workers": kept.workers, "cpus": kept.cpus}:
        return kept
    if running:
        raise ConflictError(
            f"this machine's cluster is up with {kept.workers} further nodes and {kept.cpus} CPUs, and not "
            f"{wanted['workers']} and {wanted['cpus']}: `platform down` first; nothing that is kept is lost"
        )
    return kept.model_copy(update=wanted)


def new(layout: Layout, workers: int | None, cpus: int | None, store: Store | None = None) -> Kept:
    """A cluster that there was not yet, on Postgres where that is installed."""
    kept = Kept(database="sqlite", workers=workers or 0, cpus=cpus or usable_cpus(), store=store)
    if postgres.programs() is None:
        return kept
    data = str(postgres.data_folder(layout, kept.id))
    return kept.model_copy(update={"database": "postgres", "postgres_data": data})


def with_ports(kept: Kept, random: Random, say: Say, *, running: bool) -> Kept:
    """The ports from before; new ones where there were none, or, while nothing runs, where somebody has taken one."""
    known = dict(kept.ports)
    taken = {port for ports in known.values() for port in ports.values()}
    for name, purposes in port_names(kept).items():
        ports = {purpose: port for purpose, port in known.get(name, {}).items() if purpose in purposes}
        lost = [] if running else [purpose for purpose, port in ports.items() if not is_free(port)]
        for purpose in lost:
            say(f"port {ports[purpose]}, which was {name}'s, is taken by another process: {name} gets another")
            del ports[purpose]
        new = choose([purpose for purpose in purposes if purpose not in ports], taken, random)
        taken |= set(new.values())
        known[name] = ports | new
    return kept.model_copy(update={"ports": known})


def check_ports(part: Part, kept: Kept) -> None:
    """ConflictError where another process listens on a port of a part that is to be started."""
    taken = [port for port in kept.ports[part.name].values() if not is_free(port)]
    if taken:
        raise ConflictError(
            f"{part.title} cannot be started again where it was: another process listens on port "
            f"{', '.join(map(str, taken))}. End that, or `platform down` and `platform up`, which chooses others"
        )


def shares_of(kept: Kept) -> tuple[Share, ...]:
    """What the head may use, and each further node. InputError where a node is left without a CPU."""
    memory, shared = free_memory()
    return shares(1 + kept.workers, cpus=kept.cpus, memory=memory, shared=shared)
