"""Whether a sweep's job fits into what its queue and its namespace give: pure functions over rendered objects.

Kueue lets a job go when its quota has room for all of it, and a namespace's quota keeps out pods beyond it. Neither
tells who submits: a job that asks for more than there ever is waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

Object = dict[str, Any]
Amounts = dict[str, Decimal]
"""Resource, as a container requests it -> how much, in its base unit (cores, bytes, devices)."""

_QUEUE = "kueue.x-k8s.io/queue-name"


def beyond(objects: Sequence[Object]) -> list[str]:
    """What a RayJob among them asks for beyond a quota among them; each names both numbers. Empty: it fits.

    ValueError where an amount is none of Kubernetes'.
    """
    kinds: dict[str, list[Object]] = {}
    for each in objects:
        kinds.setdefault(each["kind"], []).append(each)
    jobs, queues = kinds.get("RayJob", []), kinds.get("ClusterQueue", [])
    standing = [*kinds.get("Deployment", []), *kinds.get("StatefulSet", [])]
    queued = [job for job in jobs if _QUEUE in job["metadata"].get("labels", {})]
    return [
        *(told for job in queued for queue in queues for told in beyond_queue(job, queue)),
        *(
            told
            for job in jobs
            for quota in kinds.get("ResourceQuota", [])
            for told in _beyond_namespace(job, quota, standing)
        ),
    ]


def beyond_queue(job: Object, queue: Object) -> list[str]:
    """What a RayJob asks for beyond a ClusterQueue's quota; one in a cohort may borrow what is not its own."""
    given: dict[str, list[object]] = {}
    if "cohortName" not in queue["spec"]:
        for group in queue["spec"].get("resourceGroups", ()):
            for flavor in group["flavors"]:
                for each in flavor["resources"]:
                    given.setdefault(each["name"], []).append(each["nominalQuota"])
    return _more(_asked(job, "requests"), given, f"ClusterQueue/{queue['metadata']['name']}")


def _beyond_namespace(job: Object, quota: Object, standing: Sequence[Object]) -> Iterator[str]:
    """Beside what always stands there."""
    hard: dict[str, object] = quota["spec"]["hard"]
    for kind in ("requests", "limits"):
        asked = _asked(job, kind)
        for each in standing:
            _add(asked, each["spec"]["template"]["spec"], kind, each["spec"].get("replicas", 1))
        given = {key.removeprefix(f"{kind}."): [value] for key, value in hard.items() if key.startswith(f"{kind}.")}
        if kind == "requests" and "pods" in hard:
            given["pods"] = [hard["pods"]]
        yield from _more(asked, given, f"ResourceQuota/{quota['metadata']['name']} in {kind}")


def _more(asked: Amounts, given: Mapping[str, Sequence[object]], whose: str) -> list[str]:
    return [
        f"a sweep takes {_shown(asked[name])} {name}, and {whose} has {' + '.join(map(str, given[name]))}"
        for name in sorted({*asked} & {*given})
        if asked[name] > sum(parse_quantity(each) for each in given[name])
    ]


def _asked(job: Object, kind: str) -> Amounts:
    """All pods of its Ray cluster at its largest. What waits for the head in them asks for no more than they do."""
    total: Amounts = {}
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    scaling = [cluster.get("autoscalerOptions", {})] if cluster.get("enableInTreeAutoscaling") else []
    _add(total, {"containers": [*head, *scaling]}, kind, 1)
    for group in cluster.get("workerGroupSpecs", ()):
        _add(total, group["template"]["spec"], kind, group["maxReplicas"])
    return total


def _add(total: Amounts, pod: Mapping[str, Any], kind: str, count: int) -> None:
    total["pods"] = total.get("pods", Decimal(0)) + count
    for container in pod["containers"]:
        resources = container.get("resources", {})
        # A limit is the request too where that is not said.
        asked = {**resources.get("limits", {}), **resources.get(kind, {})}
        for name, amount in asked.items():
            total[name] = total.get(name, Decimal(0)) + count * parse_quantity(amount)


def _shown(amount: Decimal) -> str:
    gib = amount / 2**30
    return f"{gib.normalize():f}Gi" if gib >= 1 else f"{amount.normalize():f}"
