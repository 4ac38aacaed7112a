"""What a break is: what is changed in which manifest of which place, and the words that then tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.deploy.rules import Rule

Path = tuple[str | int, ...]
GONE = object()

HEAD: Path = ("spec", "headGroupSpec", "template", "spec")
CPU: Path = ("spec", "workerGroupSpecs", 0)
GPU: Path = ("spec", "workerGroupSpecs", 1)
POD: Path = ("spec", "template", "spec")
CONTAINER: Path = (*POD, "containers", 0)
IN_JOB: Path = ("spec", "rayClusterSpec")
LABELS: Path = ("spec", "podSelector", "matchLabels")

RAY, JOB, SERVE = "RayCluster/tunery", "RayJob/tunery", "Deployment/serve"
MLFLOW, POSTGRES, MIGRATE = "Deployment/mlflow", "StatefulSet/postgres", "Job/mlflow-migrate"
QUEUE, QUOTA = "ClusterQueue/tunery", "ResourceQuota/tunery"


@dataclass(frozen=True)
class Break:
    """One change to what is rendered."""

    rule: Rule
    told: str
    """Words of the mistake that comes of it."""
    whose: str
    """`Kind/name`."""
    path: Path
    value: Any
    """`GONE`: nothing; a function: what it makes of what is there."""
    place: str = "gpu"

    def __str__(self) -> str:
        return f"{self.rule.__name__}-{self.whose}-{'.'.join(map(str, self.path))[-60:]}"


def env(name: str, **given: object) -> list[dict[str, object]]:
    return [{"name": name, **given}]
