"""What the Ray that was started or joined has."""

from __future__ import annotations

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tunery.cluster.placement import Node, Room


def nodes() -> tuple[Node, ...]:
    """The nodes that are there now."""
    each = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return tuple(Node(cpus=has.get("CPU", 0.0), gpus=has.get("GPU", 0.0)) for has in each)


def room() -> Room:
    """All of it together."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Room(nodes(), memory=int(found.get("memory", 0)))


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Where this process is: for what is of no use without it, so that the loss of another node does not end it."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
