"""What a run starts on: Ray, and which packs with what share of it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from storage.fetching import offline
from tunery.cluster.at_hand import processes_of
from tunery.cluster.nodes import room
from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.placement import base_key as base_key
from tunery.cluster.placement import by_base, place_plan
from tunery.cluster.remote_desk import RemoteDesk
from tunery.errors import RunError
from tunery.plan import Plan
from tunery.profile import Profile
from tunery.runs import RunFolder

log = logging.getLogger(__name__)

STARTS = 3
"""Attempts at a Ray of this machine's: it gives its own processes 30 s to answer, which a busy machine may not do."""

_QUIETER = {
    # Nobody takes this machine away; the watcher would be one more process.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Nobody reads what these two gather: by default they look through all logs ten times a second, and at all
    # processes every five seconds.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "60",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_DASHBOARD_AGENT_LOOP_MONITOR_INTERVAL_S": "5",
}
"""For a Ray of this machine's: what its own processes do takes time from the steps on the same cores."""
_TOKENS = "ray._private.authentication.authentication_token_setup"


@contextmanager
def started_ray(profile: Profile, *, namespace: str) -> Iterator[None]:
    """Join the profile's cluster, or have a Ray of this machine's for as long as the context lasts."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # That it asks for a token, which the run's processes have, is nothing to opt out of; that it does not is told.
    logging.getLogger(_TOKENS).addFilter(lambda record: "authentication is enabled" not in record.getMessage())
    if profile.ray:
        # A joined cluster's processes do not inherit our environment.
        variables = {"HF_HUB_OFFLINE": "1"} if offline() else {}
        _init(profile.ray, namespace, runtime_env=processes_of(profile, variables))
    else:
        for name, value in _QUIETER.items():
            os.environ.setdefault(name, value)
        _start_here(profile.cpus or os.cpu_count(), namespace)
    try:
        yield
    finally:
        ray.shutdown()


def _init(address: str, namespace: str, **more: Any) -> None:
    heeded = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            namespace=namespace,
            **more,
        )
    finally:
        # Ray puts a handler of its own in place, which ends the process at once, its seats without a last checkpoint.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heeded)


def _start_here(cpus: int | None, namespace: str) -> None:
    """Start a Ray of this machine's.

    Raises:
        RunError: it did not come up in `STARTS` attempts.
    """
    before = _children()
    for attempt in range(1, STARTS + 1):
        try:
            _init("local", namespace, num_cpus=cpus)
            break
        except Exception as error:  # Ray has no narrower one for a node that does not answer
            # What was started would live as long as this process, beside what is started next.
            begun = _children() - before
            for process in begun:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(begun, timeout=10)
            if attempt == STARTS:
                raise RunError(
                    f"Ray did not start on this machine in {STARTS} attempts: {error}\n"
                    "its logs are in ray/session_latest/logs below RAY_TMPDIR, TMPDIR or /tmp; where other work leaves "
                    "too little memory or processor time, end that, and submit again"
                ) from error
            log.warning("Ray did not start (%s); trying again", error)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def pack_orders(plan: Plan, run: RunFolder, desk: RemoteDesk, profile: Profile) -> list[tuple[PackOrder, Resources]]:
    """The packs of each base, as there is room for them on the Ray that was started or joined."""
    bases, placement, wanted = by_base(plan), place_plan(plan, room()), plan.spec.resources
    places = [(base, studies[0]) for base, studies in bases.items() for _ in range(placement.packs)]
    return [
        (
            PackOrder(
                pack=f"pack-{number}",
                base_key=base,
                model=study.model,
                quantisation=study.tuner.quantisation,
                dequantised_once=study.tuner.dequantised_once,
                trained=study.tuner.trains_base,
                beside=study.tuner.trains_beside,
                kept_bytes=study.tuner.kept_bytes,
                language=any(each.definition.kind == "generation" for each in bases[base]),
                capacity=1 if study.tuner.trains_base else placement.capacity,
                gradient_checkpointing=wanted.gradient_checkpointing,
                threads=placement.threads,
                memory=placement.memory[base],
                packs=placement.to_spare,
                run=run.root,
                store=run.store,
                desk=desk,
                our_ray=not profile.ray,
                weights=Path(profile.weights) if profile.weights else None,
                begin=plan.begin.checkpoint if plan.begin else "",
            ),
            placement.share,
        )
        for number, (base, study) in enumerate(places)
    ]
