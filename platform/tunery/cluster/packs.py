"""Packs as Ray Train jobs: started, watched, and started again as `retry.decide` says."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import PreemptionError, TrainingFailedError, WorkerGroupError

from storage.errors import HubUnreachableError, RegistryUnreachableError, StorageError, StoreUnreachableError
from tuners.errors import TunerError
from tunery.cluster.nodes import nodes
from tunery.cluster.orders import PackOrder, Resources
from tunery.cluster.placement import workers_on
from tunery.cluster.retry import Cause, Failure, GiveUp, decide
from tunery.cluster.shortage import explained

log = logging.getLogger(__name__)

_ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
"""Ray Train's loop runs in a thread that is not the process's first one. glibc gives such a thread an arena of its own,
which gives back what a step frees whatever `keep_freed_memory` asks for: 12,000 page faults a second, measured."""

NODE_LIMIT_S = 120.0
"""Within which a lost node is expected back, or another in its place, before a pack goes on with fewer workers."""


def host(order: PackOrder, resources: Resources, storage_path: Path) -> str:
    """Run one pack to its end. Returns '' when the desk sent it home, else why it was given up."""
    attempt, share = 0, resources
    while True:
        try:
            _train(order, share, storage_path, attempt)
            return ""
        except TrainingFailedError as error:
            cause, detail = classify(error)
        attempt += cause is not Cause.PREEMPTED
        decision = decide(Failure(cause, detail, attempt))
        order.desk.lose_pack(order.pack)
        log.warning("pack %s: %s (%s): %s", order.pack, cause.value, detail, decision)
        if isinstance(decision, GiveUp):
            return explained(order, cause, decision.why)
        if decision.smaller:
            order = replace(order, capacity=max(1, order.capacity // 2), halvings=order.halvings + 1)
        share = _there(order.pack, resources)


def _worker(config: Mapping[str, Any]) -> None:
    """The loop of Ray Train's workers; imported there, so that nothing else of the job loads the engine."""
    from tunery.cluster.pack_host import host_pack

    host_pack(config)


def _train(order: PackOrder, resources: Resources, storage_path: Path, attempt: int) -> None:
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    (_OnOurRay if order.our_ray else _WithoutExtras)(
        _worker,
        train_loop_config={"order": order},
        backend_config=_process_group(resources),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in per_worker.items() if amount > 0},
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # at run time it is Train's of today
            name=f"{order.pack}-{attempt}",
            storage_path=str(storage_path),
            # One policy, not two: `retry.decide` starts the pack again.
            failure_config=FailureConfig(max_failures=0),
            worker_runtime_env={"env_vars": _ALLOCATOR},
        ),
    ).fit()


class _WithoutExtras(DataParallelTrainer):
    """Ray Train without actors that a pack has no use for: each is a process that imports all of Ray Data and Train."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [each for each in super()._create_default_callbacks() if not isinstance(each, self._extras)]

    _extras: tuple[type, ...] = (DatasetsCallback,)
    """Packs read their tokens themselves."""


class _OnOurRay(_WithoutExtras):
    _extras = (DatasetsCallback, PlacementGroupCleanerCallback)
    """And a Ray that ends with the run keeps no reservation that nobody is there to return."""


def _process_group(resources: Resources) -> BackendConfig | None:
    """What several workers of a pack need; it loads torch into every process of the job."""
    if resources.workers == 1:
        return None
    from ray.train.torch import TorchConfig

    return TorchConfig(backend="nccl" if resources.gpus_per_worker > 0 else "gloo")


def _there(pack: str, wanted: Resources) -> Resources:
    """What a pack that starts again may count on: fewer workers where its cluster has lost nodes for good."""
    deadline = time.monotonic() + NODE_LIMIT_S
    while (workers := workers_on(nodes(), wanted)) < wanted.workers and time.monotonic() < deadline:
        time.sleep(1.0)  # Ray tells nobody when a node joins
    if workers >= wanted.workers:
        return wanted
    log.warning("pack %s: the cluster has room for %d of its %d workers", pack, workers, wanted.workers)
    # With room for none Ray waits until there is some.
    return replace(wanted, workers=max(1, workers))


def classify(error: TrainingFailedError) -> tuple[Cause, str]:
    """What ended a pack, from what Ray Train raised."""
    if isinstance(error, PreemptionError):
        return Cause.PREEMPTED, str(error)
    failures: Mapping[int, Exception] = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    causes = [(_cause(_inner(failure)), _inner(failure)) for failure in failures.values()]
    if not causes:
        return Cause.UNKNOWN, _first_line(error)
    # When one worker dies the others lose their connection to it: what is known here tells more than that.
    cause, failure = min(causes, key=lambda found: found[0] is Cause.UNKNOWN)
    return cause, f"{type(failure).__name__}: {_first_line(failure)}"


def _inner(error: BaseException) -> BaseException:
    """The exception a worker raised, out of Ray's wrappers."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    return error


def _cause(error: BaseException) -> Cause:
    # By name: torch is not loaded in this process.
    names = {cls.__name__ for cls in type(error).__mro__}
    if "OutOfMemoryError" in names and not isinstance(error, OutOfMemoryError):
        return Cause.DEVICE_MEMORY
    # torch has no class of its own for what a CPU's allocator refuses.
    if isinstance(error, OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return Cause.HOST_MEMORY
    if isinstance(error, RayActorError):
        return Cause.WORKER_DIED
    if isinstance(error, HubUnreachableError | RegistryUnreachableError | StoreUnreachableError):
        return Cause.UNREACHABLE
    if isinstance(error, TunerError | StorageError | ValueError | TypeError | ImportError):
        return Cause.CONFIGURATION
    return Cause.UNKNOWN


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
