"""What Prometheus may know of a run while it trains, at the metrics port of Ray's node (there each name begins with
`ray_`). deploy/k8s has a dashboard and alerts over them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Gauge

from tunery.runs import TrialState


class Gauges:
    """Of one run, which is their label."""

    def __init__(self, run_id: str) -> None:
        self._seats = Gauge("tunery_seats", "Trials that train", ("run",))
        self._waiting = Gauge("tunery_trials_waiting", "Trials that wait for a place in a pack", ("run",))
        self._tokens = Gauge("tunery_tokens_per_second", "Tokens a second that all its trials train on", ("run",))
        for gauge in (self._seats, self._waiting, self._tokens):
            gauge.set_default_tags({"run": run_id})

    def tell(self, trials: Iterable[TrialState]) -> None:
        """Of those that have begun and not ended."""
        there = list(trials)
        seated = [trial for trial in there if trial.status == "running"]
        self._seats.set(len(seated))
        self._waiting.set(len(there) - len(seated))
        self._tokens.set(sum(trial.tokens_per_s or 0.0 for trial in seated))
