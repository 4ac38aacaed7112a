"""checkov over every pod. It knows none of the kinds of Ray, so the pods that come of these are lifted out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import checkov
from tests.deploy.conftest import COMPOSED, OVERLAYS
from tests.deploy.manifests import Manifest, Pod, of_kind, pods
from tests.deploy.rules.pods import PLACEHOLDERS

PASSED_OVER = {
    "CKV_K8S_8": "liveness: KubeRay's operator brings Ray's, a Job serves nobody; rules/services.py has what serves",
    "CKV_K8S_9": "readiness: the same",
    "CKV_K8S_11": "a limit of CPU slows down what others leave idle; Ray's workers, whose CPUs are counted, have one",
    "CKV_K8S_40": "Postgres's image has its files and its user, 999",
}
"""Check -> why it does not hold here."""

BROKEN: dict[str, tuple[str, Callable[[Any], object]]] = {
    "privileged": ("CKV_K8S_16", lambda spec: spec["containers"][0]["securityContext"].update(privileged=True)),
    "escalates": ("CKV_K8S_20", lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation")),
    "as-root": ("CKV_K8S_23", lambda spec: spec["securityContext"].update(runAsNonRoot=False, runAsUser=0)),
    "of-the-host": ("CKV_K8S_19", lambda spec: spec.update(hostNetwork=True)),
    "can-write": ("CKV_K8S_22", lambda spec: spec["containers"][0]["securityContext"].pop("readOnlyRootFilesystem")),
}
"""Name -> the check that tells it, and what is done to the pod of Ray's head."""

Places = Callable[[str], list[Manifest]]


@pytest.fixture(scope="module")
def failed(
    request: pytest.FixtureRequest, places: Places, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    """File -> the checks that it fails. One process for all files: it takes longer to start than to judge."""
    at = checkov.packages(request.config)
    folder = tmp_path_factory.mktemp("pods")
    for place in (*OVERLAYS, *COMPOSED):
        _write(folder / f"{place}.yaml", _judged(places(place), [_lifted(pod) for pod in pods(places(place))]))
    for broken, (_, change) in BROKEN.items():
        (head,) = (pod for pod in pods(places("gpu")) if pod.owner == "RayCluster/tunery head")
        lifted = _lifted(head)
        change(lifted["spec"])
        _write(folder / f"broken-{broken}.yaml", _judged(places("gpu"), [lifted]))
    found: dict[str, set[str]] = {}
    for each in checkov.judge(folder, at=at, passed_over=[*PASSED_OVER]):
        found.setdefault(Path(each["file_path"]).stem, set()).add(f"{each['check_id']} {each['resource']}")
    return found


def test_no_pod_fails_a_check(failed: dict[str, set[str]]) -> None:
    assert {place: checks for place, checks in failed.items() if not place.startswith("broken-")} == {}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_pod_fails_one(broken: str, failed: dict[str, set[str]]) -> None:
    assert any(each.startswith(f"{BROKEN[broken][0]} ") for each in failed.get(f"broken-{broken}", ()))


def _judged(manifests: list[Manifest], lifted: list[Manifest]) -> list[Manifest]:
    """Beside the policies of the network, without which no pod is let pass."""
    return [*lifted, *of_kind(manifests, "NetworkPolicy")]


def _lifted(pod: Pod) -> Manifest:
    spec: dict[str, Any] = {**pod.spec}
    for kind in ("initContainers", "containers"):
        spec[kind] = [{**each, "image": _pinned(each["image"])} for each in spec.get(kind, ())]
    metadata = {"name": re.sub(r"\W+", "-", pod.owner).lower(), "namespace": "tunery", "labels": {**pod.labels}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _pinned(image: str) -> str:
    """As a place does: that every place must is a rule of its own."""
    return f"registry.example.org/{image}@sha256:{64 * '0'}" if image in PLACEHOLDERS else image


def _write(file: Path, manifests: list[Manifest]) -> None:
    file.write_text("---\n".join(yaml.safe_dump(each) for each in manifests))
