"""What a study needs of Ray Tune."""

from __future__ import annotations

import os
import time

import pytest
from ray.tune.execution import insufficient_resources_manager as waiting

from tunery.cluster import studies


def test_a_study_may_wait_for_its_first_place_for_as_long_as_others_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune asks for a first trial for 10 minutes; without `settle` the third time in vain is an IndexError."""
    monkeypatch.setattr(os, "environ", {})
    hours = iter(range(0, 360_000, 3_600))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(hours)))
    waiting._get_insufficient_resources_warning_threshold.cache_clear()
    studies.settle()
    manager = waiting._InsufficientResourcesManager(for_train=True)
    for _ in range(24):
        manager.on_no_available_trials([])  # type: ignore[no-untyped-call]  # Ray leaves it untyped
