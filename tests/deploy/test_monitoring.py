"""Alerts and the dashboard ask for metrics that there are."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import K8S, ROOT
from tests.deploy.manifests import Manifest, of_kind

FOLDERS = [K8S / "components" / "monitoring", K8S / "components" / "monitoring-serve"]
# As their own documentation and sources name them: KubeRay 1.7's operator, dcgm-exporter's default counters, Kueue, and
# kube-state-metrics.
OTHERS = {
    "kuberay_cluster_condition_provisioned", "kuberay_job_deployment_status", "DCGM_FI_DEV_XID_ERRORS",
    "kueue_pending_workloads", "kube_deployment_status_replicas_available", "kube_statefulset_status_replicas_ready",
}  # fmt: skip
SUFFIXES = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}


def test_every_metric_is_one_that_there_is() -> None:
    known = {*_ray_metrics(), *_own_metrics(), *_gauges_of_a_run(), *OTHERS}
    asked = {metric for expression in _expressions() for metric in _metrics(expression)}
    assert len(asked) > 15
    assert asked - known == set()


def test_what_a_run_tells_of_itself_is_on_the_dashboard() -> None:
    asked = {metric for expression in _expressions() for metric in _metrics(expression)}
    gauges = _gauges_of_a_run()
    assert gauges
    assert gauges - asked == set()


def test_a_metric_that_is_not_there_is_found() -> None:
    assert _metrics('rate(ray_node_mem_use{namespace="tunery"}[5m])') - _ray_metrics() == {"ray_node_mem_use"}
    assert "tunery_requests_total" in _own_metrics()
    assert "tunery_requests" not in _own_metrics()


@pytest.mark.parametrize(("place", "monitor"), [("gpu-monitored", "ray"), ("serve-monitored", "serve")])
def test_prometheus_may_come_to_the_port_that_it_is_told(
    place: str, monitor: str, places: Callable[[str], list[Manifest]]
) -> None:
    manifests = places(place)
    (found,) = (each for each in of_kind(manifests, "PodMonitor") if each["metadata"]["name"] == monitor)
    (allowed,) = (
        each["spec"]
        for each in of_kind(manifests, "NetworkPolicy")
        if each["metadata"]["name"] == f"{monitor}-from-prometheus"
    )
    assert allowed["podSelector"] == found["spec"]["selector"]
    (port,) = (each["port"] for each in found["spec"]["podMetricsEndpoints"])
    assert {"metrics": 8080, "http": 8000}[port] == allowed["ingress"][0]["ports"][0]["port"]


def _expressions() -> Iterator[str]:
    for folder in FOLDERS:
        rules = yaml.safe_load((folder / "alerts.yaml").read_text())
        yield from (rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"])
    dashboard = json.loads((FOLDERS[0] / "tunery.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def _metrics(expression: str) -> set[str]:
    """Those with labels to select by: all are asked for those of the namespace."""
    return set(re.findall(r"([A-Za-z_:]\w*)\{", expression))


def _ray_metrics() -> set[str]:
    """What the installed Ray exports: its reporter's gauges, and what its own dashboards ask of its other processes."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    modules = Path(spec.origin).parent / "dashboard" / "modules"
    reporter = (modules / "reporter" / "reporter_agent.py").read_text()
    panels = (modules / "metrics" / "dashboards" / "default_dashboard_panels.py").read_text()
    return {f"ray_{name}" for name in re.findall(r'^    "(\w+)": Gauge\($', reporter, re.MULTILINE)} | {
        *re.findall(r"\b(ray_\w+)\{", panels)
    }


def _own_metrics() -> set[str]:
    """What the server declares, with the endings that the client library gives them."""
    return {
        f"{metric}{suffix}"
        for kind, metric in _declared(ROOT / "platform" / "tunery" / "serving" / "front.py")
        for suffix in SUFFIXES.get(kind, ())
    }


def _gauges_of_a_run() -> set[str]:
    """What a run declares, as Ray's port names it."""
    declared = _declared(ROOT / "platform" / "tunery" / "cluster" / "gauges.py")
    return {f"ray_{metric}" for kind, metric in declared if kind == "Gauge"}


def _declared(file: Path) -> Iterator[tuple[str, str]]:
    """The kind and the name of each metric that a module makes."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(
                func=ast.Attribute(attr=kind) | ast.Name(id=kind), args=[ast.Constant(value=str(metric)), *_]
            ):
                yield kind, metric
