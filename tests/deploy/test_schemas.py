"""Every document that is rendered is one that the API server takes, and all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from tests.deploy import schemas
from tests.deploy.conftest import PLACES
from tests.deploy.manifests import Manifest, name, of_kind

needs_schemas = pytest.mark.skipif(not schemas.FOLDER.is_dir(), reason=schemas.MISSING)
Places = Callable[[str], list[Manifest]]


@pytest.mark.parametrize("place", PLACES)
def test_core_kinds_are_valid(place: str, places: Places) -> None:
    for manifest in places(place):
        if manifest["kind"] not in schemas.RAY:
            assert schemas.of_any(manifest) == []


@needs_schemas
@pytest.mark.parametrize("place", PLACES)
def test_ray_kinds_are_valid(place: str, places: Places) -> None:
    for manifest in of_kind(places(place), *schemas.RAY):
        assert schemas.mistakes(manifest) == []


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_there_twice(place: str, places: Places) -> None:
    names = [name(manifest) for manifest in places(place)]
    assert len(set(names)) == len(names)


def test_a_typo_in_a_core_kind_is_found(places: Places) -> None:
    (deployment,) = (each for each in places("dev") if name(each) == "Deployment/mlflow")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(deployment, schemas.KUBERNETES, strict=True)


@needs_schemas
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "autoscalerOptions", "idleTimeout"), 60),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "template", "spec", "restartPolice"), "Never"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "resource"), {}),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), "0"),
    ],
)
def test_a_typo_in_a_ray_kind_is_found(path: tuple[str | int, ...], value: object, places: Places) -> None:
    (cluster,) = of_kind(places("gpu"), "RayCluster")
    at: Any = cluster
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    assert len(schemas.mistakes(cluster)) == 1
