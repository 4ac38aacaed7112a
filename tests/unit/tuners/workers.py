"""Functions run by a group of processes that talk over gloo, on this machine."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch import distributed

LIMIT_S = 120.0

# The server loads the engine once; the workers are its forks.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.unit.tuners.sharded", "tuners.engine.nf4"])


def in_workers(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function` returned in each of `count` workers, by rank."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _context.Process(target=_work, args=(rank, count, Path(folder), function, args)) for rank in range(count)
        ]
        try:
            for process in processes:
                process.start()
            left = {process.sentinel: process for process in processes}
            while left:
                ended = wait(list(left), LIMIT_S)
                assert ended, f"{len(left)} of {count} workers do not end"
                for sentinel in ended:
                    process = left.pop(sentinel)  # type: ignore[arg-type]
                    assert process.exitcode == 0, f"a worker of {count} ended with {process.exitcode}"
        finally:
            for process in processes:
                process.kill()
                process.join()
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(count)]


def _work(rank: int, count: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count, timeout=timedelta(seconds=LIMIT_S)
    )
    result = function(*args)
    (folder / str(rank)).write_bytes(pickle.dumps(result))
    distributed.barrier()
    distributed.destroy_process_group()
