"""What a job asks for, beside what there is."""

from __future__ import annotations

from typing import Any

import pytest

from tunery.k8s import quotas


def test_what_is_no_amount_is_refused() -> None:
    with pytest.raises(ValueError, match="4gb"):
        quotas.beyond_queue(_job(1), _queue("4gb"))


def _pod(**requests: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"resources": {"requests": requests}}]}}}


def _job(replicas: int, **cluster: Any) -> dict[str, Any]:
    groups = [{"groupName": "w", "maxReplicas": replicas, **_pod(cpu="1500m", memory="2Gi")}]
    spec = {"headGroupSpec": _pod(cpu="1"), "workerGroupSpecs": groups, **cluster}
    return {"kind": "RayJob", "metadata": {"name": "j"}, "spec": {"rayClusterSpec": spec}}


def _queue(*cpus: object) -> dict[str, Any]:
    flavors = [{"name": "f", "resources": [{"name": "cpu", "nominalQuota": each}]} for each in cpus]
    return {"metadata": {"name": "q"}, "spec": {"resourceGroups": [{"coveredResources": ["cpu"], "flavors": flavors}]}}


def test_a_queues_flavors_count_together_and_the_group_at_its_largest() -> None:
    assert quotas.beyond_queue(_job(2), _queue(4)) == []
    assert quotas.beyond_queue(_job(4), _queue(4, "3")) == []
    assert quotas.beyond_queue(_job(5), _queue(4, "3")) == ["a sweep takes 8.5 cpu, and ClusterQueue/q has 4 + 3"]


def test_a_queue_that_may_borrow_holds_nothing_back() -> None:
    queue = _queue(1)
    queue["spec"]["cohortName"] = "teams"
    assert quotas.beyond_queue(_job(5), queue) == []


def test_the_autoscaler_counts_where_there_is_one() -> None:
    options = {"resources": {"requests": {"cpu": "100m"}}}
    assert quotas.beyond_queue(_job(2, autoscalerOptions=options), _queue(4)) == []
    scaling = _job(2, autoscalerOptions=options, enableInTreeAutoscaling=True)
    assert quotas.beyond_queue(scaling, _queue(4)) == ["a sweep takes 4.1 cpu, and ClusterQueue/q has 4"]


def test_a_job_that_waits_in_no_queue_is_held_to_none() -> None:
    queue = {"kind": "ClusterQueue", **_queue(1)}
    assert quotas.beyond([_job(2), queue]) == []
    queued = _job(2)
    queued["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "q"}
    assert quotas.beyond([queued, queue]) == ["a sweep takes 4 cpu, and ClusterQueue/q has 1"]
