"""How each rule is broken."""

from __future__ import annotations

from tests.deploy.breaks import of_a_pod, place, ray

BREAKS = [*ray.BREAKS, *of_a_pod.BREAKS, *place.BREAKS]
