"""The best configurations again with other seeds, and the driver killed in the middle of it."""

from __future__ import annotations

import json

import pytest
from optuna.trial import TrialState

from storage.registry import Registry
from tests.ray.conftest import Begin, eventually
from tests.ray.test_sweep import ledger, statuses
from tunery.report import trials
from tunery.standings import standings

pytestmark = pytest.mark.ray


def test_reruns_are_ranked_by_mean_and_survive_a_killed_driver(begin: Begin) -> None:
    again = {"seeds": 2, "top": 1}
    sweep = begin(
        search__trials=2, search__sampler={"name": "grid"}, search__rerun_best=again, search__warm_start="registry",
        search__space={"tuner.rank": {"choice": [4, 8]}}, train__epochs=2,
    )  # fmt: skip
    sweep.start()
    eventually(
        lambda: sweep.begun() and any(t.rerun_of is not None and t.objective is not None for t in sweep.study().trials),
        "a rerun with a checkpoint",
    )
    draws = {t.number: t.config for t in sweep.study().trials}
    sweep.kill()
    eventually(lambda: not sweep.folder.driven(), "the lock goes with the driver")
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()

    study = sweep.study()
    assert [(t.number, t.status, t.step) for t in study.trials] == [(n, "finished", 24) for n in range(4)]
    assert {number: study.trials[number].config for number in draws} == draws
    chosen = max(study.trials[:2], key=lambda t: (t.objective or 0.0, -t.number)).number
    assert [t.rerun_of for t in study.trials] == [None, None, chosen, chosen]
    assert len({t.config["train.seed"] for t in study.trials[2:]} | {42}) == 3
    assert ledger(sweep) == [(n, TrialState.COMPLETE) for n in range(4)]
    assert statuses(sweep) == {"cola": "FINISHED"} | {f"cola/{n}": "FINISHED" for n in range(4)}

    (standing,) = standings(study, direction="maximise")
    assert study.best == standing.best_run
    (told,) = json.loads(json.dumps(trials.document(sweep.state)))["studies"][0]["reruns"]
    assert (told["trial"], told["seeds"], told["runs"]) == (chosen, 2, [2, 3])
    assert (told["mean"], told["deviation"]) == (standing.mean, standing.deviation)
    runs = sweep.runs()
    tags = runs[f"{sweep.folder.run_id}/cola/2"].data.tags
    assert (tags["tunery.rerun_of"], tags["tunery.origin"]) == (str(chosen), f"trial {chosen}")
    assert runs[f"{sweep.folder.run_id}/cola"].data.metrics["objective_mean"] == standing.mean
    champion = Registry(sweep.home.tracking_uri).champion("fruits-cola")
    assert champion is not None
    assert champion.tags["tunery.trial"] == str(study.best)
    assert (champion.tags["tunery.seeds"], float(champion.tags["tunery.objective_mean"])) == ("2", standing.mean)
