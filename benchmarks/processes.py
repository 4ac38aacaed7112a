"""What the processes of a run take while it is under way: memory and CPU, by what they do.

    python -m benchmarks.processes --driver PID     # of a run whose Ray is its own: the driver and all below it
    python -m benchmarks.processes                  # all of this machine's that belong to runs and to Ray

Looks twice. Memory is Linux's Pss: pages that several processes share count once, in
parts. CPU is that between the two looks, so that a process's start is not in it where it lies before them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.report import machine, save, table

KINDS = {
    "tunery.cluster.driver": "driver",
    "ray::Desk": "desk",
    "ray::run_study": "a study: Ray Tune and Optuna",
    "ray::PackHosts": "the watch over all packs",
    "ray::TrainController": "a pack: Ray Train's controller",
    "ray::SynchronizationActor": "a pack: Ray Train's barrier",
    "ray::PlacementGroupCleaner": "a pack: Ray Train's cleaner, on a cluster that is joined",
    "ray::_AutoscalingCoordinatorActor": "Ray Train's coordinator",
    "ray::RayTrainWorker": "a pack: worker",
    "ray::ResourceTrainable": "a seat",  # Tune's name for a trainable with resources
    "ray::Seat": "a seat",
    "gcs_server": "Ray: GCS",
    "raylet/raylet": "Ray: raylet",
    "ray::DashboardAgent": "Ray: agent",
    "ray::RuntimeEnvAgent": "Ray: agent of environments",
}
REST = "Ray: other"


@dataclass(frozen=True)
class Look:
    kind: str
    pss: int
    """Bytes."""
    cpu_s: float
    """Since the process began."""


def looked(driver: int | None) -> dict[int, Look]:
    """By process; what ends meanwhile is left out."""
    found: dict[int, Look] = {}
    below = [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)] if driver else None
    for process in below or psutil.process_iter():
        try:
            kind = _kind(" ".join(process.cmdline()))
            if kind is not None or below:
                times, pss = process.cpu_times(), process.memory_full_info().pss
                found[process.pid] = Look(kind or REST, pss, times.user + times.system)
        except psutil.Error:
            continue
    return found


def measured(driver: int | None, *, seconds: float) -> list[dict[str, Any]]:
    """By kind, medians over its processes that were there at both looks."""
    before = looked(driver)
    began = time.monotonic()
    time.sleep(seconds)
    after, took = looked(driver), time.monotonic() - began
    kinds: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for pid in before.keys() & after.keys():
        kinds[after[pid].kind].append((after[pid].pss, (after[pid].cpu_s - before[pid].cpu_s) / took))
    return [
        {
            "kind": kind,
            "processes": len(each),
            "pss": statistics.median(pss for pss, _ in each),
            "cpu": statistics.median(cpu for _, cpu in each),
        }
        for kind, each in sorted(kinds.items(), key=lambda item: (item[0].startswith("Ray:"), item[0]))
    ]


def _kind(command: str) -> str | None:
    return next((kind for mark, kind in KINDS.items() if mark in command), None)


def told(found: Sequence[dict[str, Any]]) -> str:
    rows = [
        [each["kind"], str(each["processes"]), f"{each['pss'] / 2**20:.0f}", f"{each['cpu']:.2%}"] for each in found
    ]
    return table(["each", "processes", "Pss, MiB", "of a core"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--driver", type=int, help="process id of the run's driver (driver.lock has it); left out, all")
    parser.add_argument("--seconds", type=float, default=120.0, help="between the two looks")
    parser.add_argument("--name", default="processes", help="name of the JSON file in benchmarks/results")
    options = parser.parse_args(arguments)
    where = machine()
    found = measured(options.driver, seconds=options.seconds)
    print(told(found))
    print(f"written: {save(options.name, {'machine': where, 'seconds': options.seconds, 'found': found})}")


if __name__ == "__main__":
    main()
