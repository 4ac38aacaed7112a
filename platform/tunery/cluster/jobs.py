"""What a run has Ray do. Each loads what it needs in its own process: the driver loads neither torch nor Tune."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from tunery.cluster.messages import StudyData
from tunery.cluster.nodes import on_this_node
from tunery.cluster.orders import PackOrder, Resources, StudyOrder
from tunery.plan import Study


@ray.remote(num_cpus=0, max_retries=2)
def prepare_study(study: Study, cache: Path) -> StudyData:
    """See `data.prepare`."""
    from tunery.cluster.data import prepare

    return prepare(study, cache)


@ray.remote(num_cpus=0, max_retries=0)
def run_study(order: StudyOrder) -> int:
    """See `studies.run_study`."""
    from tunery.cluster import studies

    return studies.run_study(order)


def start_study(order: StudyOrder) -> ray.ObjectRef[int]:
    """Have it run beside the driver."""
    started: ray.ObjectRef[int] = run_study.options(scheduling_strategy=on_this_node()).remote(order)
    return started


def pack_hosts(packs: int) -> Any:
    """The actor that watches over so many packs."""
    actor: Any = ray.remote(PackHosts)
    return actor.options(num_cpus=0, max_concurrency=packs, scheduling_strategy=on_this_node()).remote()


class PackHosts:
    """One process for all packs, with a thread for each: it only waits, and Ray Train is imported once."""

    def host(self, order: PackOrder, resources: Resources, storage_path: Path) -> str:
        """See `packs.host`."""
        from tunery.cluster import packs

        return packs.host(order, resources, storage_path)


def done(refs: Iterable[ray.ObjectRef[Any]]) -> list[ray.ObjectRef[Any]]:
    """Those that have ended, well or not; waits for none."""
    listed = list(refs)
    return ray.wait(listed, num_returns=len(listed), timeout=0)[0] if listed else []
