"""What a pack that died is started again with, and what it died of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ray.exceptions import RayActorError
from ray.train.v2.api.exceptions import WorkerGroupError

from storage.errors import (
    HubUnreachableError,
    NotFetchedError,
    RegistryUnreachableError,
    StoreRefusedError,
    StoreUnreachableError,
)
from tuners.errors import TunerError
from tunery.cluster import packs
from tunery.cluster.orders import Resources
from tunery.cluster.packs import classify
from tunery.cluster.placement import Node
from tunery.cluster.retry import Cause

CPU = Resources(workers=3, cpus_per_worker=0.75, gpus_per_worker=0)


def test_a_pack_starts_again_with_the_workers_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "NODE_LIMIT_S", 0.0)
    for there, workers in (((Node(4.0),), 3), ((Node(1.6),), 2), ((), 1)):
        monkeypatch.setattr(packs, "nodes", lambda there=there: there)
        assert packs._there("pack-0", CPU) == replace(CPU, workers=workers)


LOST = RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("failures", "cause"),
    [
        ({0: LOST, 1: RayActorError()}, Cause.WORKER_DIED),
        ({0: RayActorError(), 1: LOST}, Cause.WORKER_DIED),
        ({0: LOST, 1: TunerError("no such model")}, Cause.CONFIGURATION),
        ({0: LOST, 1: LOST}, Cause.UNKNOWN),
        ({0: HubUnreachableError("it does not answer")}, Cause.UNREACHABLE),
        ({0: RegistryUnreachableError("it does not answer")}, Cause.UNREACHABLE),
        ({0: StoreUnreachableError("it does not answer")}, Cause.UNREACHABLE),
        ({0: StoreRefusedError("no such bucket")}, Cause.CONFIGURATION),
        ({0: NotFetchedError("config.json is not there")}, Cause.CONFIGURATION),
        ({0: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")}, Cause.HOST_MEMORY),
    ],
)
def test_a_lost_connection_does_not_hide_what_ended_the_pack(failures: dict[int, Exception], cause: Cause) -> None:
    assert classify(WorkerGroupError("a worker failed", failures))[0] is cause
