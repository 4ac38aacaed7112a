"""`up`, `down` and `look`: what is there is found out, then what is missing is started or what is there ended."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

import httpx

from tunery.errors import InputError, UnreachableError
from tunery.here import part as one
from tunery.here import postgres, ray
from tunery.here.kept import Kept, alone, load, save
from tunery.here.layout import Layout
from tunery.here.part import Part, Say
from tunery.here.parts import parts, write_profiles
from tunery.here.processes import Remembered
from tunery.here.shape import check_ports, new, shares_of, sized, with_ports
from tunery.here.store import keep_key, wanted
from tunery.home import Home
from tunery.parcel import run_of

_ASK_S = 5.0

Condition = Literal["well", "not well", "gone", "down"]
"""`gone`: it was started, and is not there any more; `down`: it was not started, or ended by `down`."""


@dataclass(frozen=True)
class Seen:
    """One part, as it is."""

    part: str
    title: str
    condition: Condition
    trouble: str
    """What is wrong with one that is not well."""
    pid: int | None
    address: str
    log: Path


@dataclass(frozen=True)
class Brought:
    """What `up` came to."""

    seen: tuple[Seen, ...]
    started: tuple[str, ...]
    """Titles of the parts that were started; none: all was well already."""
    database: str


def up(
    home: Home, say: Say, *, workers: int | None, cpus: int | None, random: Random, store: str | None = None
) -> Brought:
    """Start all that is not well. `workers`: Ray nodes beside the head; None: as before, or none. `store`: of artifacts
    and checkpoints; None: as before, or the cluster's folder.

    InputError for what cannot be; ConflictError where a cluster of another size is up, or a port is taken;
    UnreachableError for a part that does not come up: those that did stay, and `up` goes on from there.
    """
    if sys.platform != "linux":
        raise InputError(f"`platform up` needs Linux, and this is {sys.platform}: runs on this machine need no cluster")
    asked = wanted(store, os.environ)
    layout = Layout.of(home)
    layout.make()
    with alone(layout):
        before = load(layout)
        kept = sized(before, workers, cpus, asked) or new(layout, workers, cpus, asked)
        running = any(each.lives for each in kept.processes.values())
        if asked is not None and asked.is_bucket:
            keep_key(layout, os.environ, running=running)
        shared = shares_of(kept)
        kept = with_ports(kept, random, say, running=running)
        short, _ = ray.short_folder(layout, kept.short)
        kept = kept.model_copy(update={"short": short})
        save(layout, kept)
        made = parts(layout, kept, shared)
        write_profiles(layout, kept)
        started: list[str] = []
        for part in made:
            process = kept.processes.get(part.name)
            if process is not None and process.lives and _is_well(part, process, say):
                continue
            if part.name == ray.HEAD:
                # Nodes do not outlive their head, and those of the one before must not meet the next.
                for node in made[made.index(part) + 1 :]:
                    _end_rest(node, kept, say, at_once=True)
            _end_rest(part, kept, say)
            check_ports(part, kept)
            kept = _start(part, layout, kept, say)
            started.append(part.title)
        return Brought(tuple(_see(part, kept) for part in made), tuple(started), kept.database)


def down(home: Home, say: Say) -> tuple[str, ...]:
    """End all parts, those first that use others; the titles of those that were there. What they have kept stays.

    UnreachableError where a process does not end.
    """
    layout = Layout.of(home)
    if not layout.root.exists():
        return ()
    with alone(layout):
        kept = load(layout)
        if kept is None:
            return ()
        for run in _under_way(layout, kept, say):
            say(f"run {run} is under way: it is interrupted, and goes on when submitted again after `platform up`")
        ended: list[str] = []
        for part in reversed(parts(layout, kept, shares_of(kept))):
            if one.end(part, kept.processes.get(part.name), kept.mark(part.name)):
                ended.append(part.title)
                say(f"{part.title} has ended")
            kept = kept.with_process(part.name, None)
            save(layout, kept)
        ray.remove_short_folder(kept.short)
        save(layout, kept.model_copy(update={"short": ""}))
        return tuple(ended)


def look(home: Home) -> tuple[Seen, ...]:
    """All parts as they are; none where there was never a cluster."""
    layout = Layout.of(home)
    kept = load(layout)
    return () if kept is None else tuple(_see(part, kept) for part in parts(layout, kept, shares_of(kept)))


def _start(part: Part, layout: Layout, kept: Kept, say: Say) -> Kept:
    say(f"starting {part.title}, at {part.address}")
    for attempt in range(1, part.starts + 1):
        process = one.start(part, kept.mark(part.name))
        # At once, so that whatever ends this command, what it has started is known.
        kept = kept.with_process(part.name, process)
        save(layout, kept)
        try:
            one.wait(part, process, say)
            break
        except UnreachableError as error:
            one.end(part, process, kept.mark(part.name))
            if attempt == part.starts or not isinstance(error, one.EndedAtStartError):
                raise
            say(f"{part.title} has ended at its start: starting it again (see {part.log})")
    if isinstance(part, postgres.Postgres) and not kept.postgres_made:
        kept = kept.model_copy(update={"postgres_made": True})
        save(layout, kept)
    say(f"{part.title} is well")
    return kept


def _is_well(part: Part, process: Remembered, say: Say) -> bool:
    """Whether a part that is there is well, or becomes so within the time that a start has."""
    trouble = part.trouble()
    if not trouble:
        return True
    say(f"{part.title} is there, and not well ({trouble}): waiting for it")
    try:
        one.wait(part, process, say)
    except UnreachableError as error:
        say(str(error))
        return False
    return True


def _end_rest(part: Part, kept: Kept, say: Say, *, at_once: bool = False) -> None:
    """What is left of a part that has died, or is to be started again."""
    if one.end(part, kept.processes.get(part.name), kept.mark(part.name), at_once=at_once):
        say(f"what was left of {part.title} has been ended")


def _under_way(layout: Layout, kept: Kept, say: Say) -> tuple[str, ...]:
    """The runs that the cluster works on."""
    head = kept.processes.get(ray.HEAD)
    if head is None or not head.lives:
        return ()
    url = f"http://127.0.0.1:{kept.ports[ray.HEAD]['dashboard']}/api/jobs/"
    token = layout.secret(ray.TOKEN_FILE)
    try:
        answer = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=_ASK_S, trust_env=False)
        jobs = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        say(f"whether runs are under way is not known: {error}")
        return ()
    living = [job for job in jobs if job.get("status") in ("PENDING", "RUNNING")]
    return tuple(run for job in living if (run := run_of(job.get("metadata"))) is not None)


def _see(part: Part, kept: Kept) -> Seen:
    process = kept.processes.get(part.name)
    condition: Condition = "down"
    trouble, pid = "", None
    if process is not None and process.lives:
        trouble, pid = part.trouble(), process.pid
        condition = "not well" if trouble else "well"
    elif process is not None:
        condition, trouble = "gone", f"process {process.pid} is not there any more"
    return Seen(part.name, part.title, condition, trouble, pid, part.address, part.log)
