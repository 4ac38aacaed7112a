"""What a run starts on: Ray, and which packs with what share of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.remote_desk import RemoteDesk
from tunery.plan import Plan, Study
from tunery.profile import Profile

SEATS_CPUS = 0.5
"""Left by the packs: a seat asks Ray for a thousandth of a CPU, and would wait for ever where there is none."""


@contextmanager
def started_ray(profile: Profile, *, namespace: str) -> Iterator[None]:
    """Join the profile's cluster, or have a Ray of this machine's for as long as the context lasts."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "16")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")  # nobody restores from Tune's snapshots: see `sampler`
    if not profile.ray:
        # Nobody takes this machine away; the watcher would be one more process to start.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    ray.init(
        address=profile.ray or "local",
        num_cpus=None if profile.ray else (profile.cpus or os.cpu_count()),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        namespace=namespace,
    )
    try:
        yield
    finally:
        ray.shutdown()


def pack_orders(plan: Plan, run: Path, desk: RemoteDesk) -> list[tuple[PackOrder, Resources]]:
    """The packs of each base. Where they want more cores than the started Ray has, each gets less."""
    wanted = plan.spec.resources
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    bases = {base_key(study): study for study in plan.studies}
    workers = len(bases) * wanted.packs * wanted.workers
    share = Resources(
        wanted.workers, min(wanted.cpus_per_worker, (cores - SEATS_CPUS) / workers), wanted.gpus_per_worker
    )
    places = [(base, study) for base, study in bases.items() for _ in range(wanted.packs)]
    return [
        (
            PackOrder(
                pack=f"pack-{number}",
                base_key=base,
                model_id=study.model.id,
                revision=study.model.revision,
                quantisation=study.tuner.quantisation,
                dtype=study.model.dtype,
                capacity=wanted.seats,
                threads=max(1, cores // workers),
                run=run,
                desk=desk,
            ),
            share,
        )
        for number, (base, study) in enumerate(places)
    ]


def base_key(study: Study) -> str:
    """Studies with the same key can share a pack."""
    model = study.model
    return f"{model.id}@{model.revision or ''}|{study.tuner.quantisation}|{model.dtype}"
