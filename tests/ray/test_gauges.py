"""What Prometheus reads of a run, from a real Ray."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import ray

from tests.ray.conftest import eventually
from tunery.cluster.gauges import Gauges
from tunery.cluster.start import started_ray
from tunery.home import Home
from tunery.profile import load_profile
from tunery.runs import TrialState

pytestmark = pytest.mark.ray

TRIALS = (
    TrialState(number=0, status="running", tokens_per_s=1500.0),
    TrialState(number=1, status="running", tokens_per_s=500.0),
    TrialState(number=2, status="running"),
    TrialState(number=3, status="waiting", tokens_per_s=700.0),
)
"""The last but one has said nothing yet; the last had a place, and waits for another."""


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[str]:
    """Address of a Ray node's metrics."""
    with started_ray(load_profile(None, Home(tmp_path)), namespace="gauges"):
        (node,) = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's are untyped
        yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def told(address: str) -> dict[str, float]:
    """Of the run, by gauge."""
    try:
        text = urlopen(address, timeout=10).read().decode()  # an address of this machine
    except URLError:
        return {}  # the agent is not up yet
    lines = re.findall(r'^ray_tunery_(\w+)\{[^}]*run="cola-1"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_prometheus_reads_a_runs_seats_its_queue_and_its_tokens_a_second(metrics: str) -> None:
    gauges = Gauges("cola-1")
    gauges.tell(TRIALS)
    expected = {"seats": 3.0, "trials_waiting": 1.0, "tokens_per_second": 2000.0}
    eventually(lambda: told(metrics) == expected, "the gauges of four trials", limit_s=120)
    gauges.tell(())
    eventually(lambda: told(metrics) == dict.fromkeys(expected, 0.0), "nothing is under way", limit_s=120)
