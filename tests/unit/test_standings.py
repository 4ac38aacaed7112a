"""How configurations stand over their seeds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.report.states import study, trial
from tunery.cluster.ledger import Ledger
from tunery.cluster.messages import Report
from tunery.plan import compile_plan
from tunery.runs import TrialState
from tunery.spec import parse_spec
from tunery.standings import standing_of, standings

SPEC = """\
apiVersion: tunery/v1
kind: Sweep
name: x
model: {id: org/model}
tasks: [cola]
tuner: {method: lora}
search: {trials: 3, rerun_best: {seeds: 2, top: 2}, space: {tuner.rank: {choice: [4, 8, 16]}}}
"""


def again(number: int, of: int, objective: float | None, status: str = "finished", **more: Any) -> TrialState:
    return trial(number, status, objective, rerun_of=of, **more)


SEARCH = (trial(0, "finished", 0.80), trial(1, "finished", 0.70), trial(2, "pruned", 0.30))
LUCKY = (*SEARCH, again(3, 0, 0.60), again(4, 1, 0.72), again(5, 0, 0.62), again(6, 1, 0.74))


def test_the_mean_is_of_the_reruns_and_the_search_s_own_run_is_left_out() -> None:
    first, second = standings(study(trials=LUCKY), direction="maximise")
    assert (first.trial, first.runs, first.best_run) == (1, (4, 6), 6)
    assert first.mean == pytest.approx(0.73)
    assert first.deviation == pytest.approx(0.02 / 2**0.5)
    assert (second.trial, second.best_run) == (0, 0)
    assert second.mean == pytest.approx(0.61)


def test_less_is_better_the_other_way() -> None:
    first, _ = standings(study(trials=LUCKY), direction="minimise")
    assert (first.trial, first.best_run) == (0, 3)


def test_one_that_failed_comes_after_those_that_did_not() -> None:
    trials = (*SEARCH, again(3, 0, None, "failed"), again(4, 1, 0.5), again(5, 0, 0.9), again(6, 1, 0.5))
    first, second = standings(study(trials=trials), direction="maximise")
    assert (first.trial, second.trial, second.failed, second.runs) == (1, 0, 1, (5,))
    assert (second.mean, second.deviation) == (0.9, None)


def test_one_whose_reruns_all_failed_has_no_mean() -> None:
    trials = (*SEARCH, again(3, 0, None, "failed"), again(4, 1, 0.1))
    assert [(each.trial, each.mean) for each in standings(study(trials=trials), direction="maximise")] == [
        (1, 0.1),
        (0, None),
    ]


def test_a_trial_finds_its_configuration() -> None:
    state = study(trials=LUCKY)
    found = standing_of(state, 6, direction="maximise")
    assert found is not None
    assert found.trial == 1
    assert standing_of(state, 2, direction="maximise") is None
    assert standing_of(state, None, direction="maximise") is None


def ledger_with(trials: tuple[TrialState, ...]) -> Ledger:
    begun = Ledger.begin(compile_plan(parse_spec(SPEC, file="x")), tracking_uri="", now=0.0).state
    state = begun.studies[0].model_copy(update={"trials": trials, "best": 0})
    return Ledger(begun.model_copy(update={"studies": (state,)}))


def test_a_settled_study_has_the_best_run_of_the_best_mean() -> None:
    ledger = ledger_with(LUCKY)
    assert ledger.study("cola").planned == 7
    ledger.report("cola", 6, Report(0, 1, 1, 1.0, 1, 0.99, True, True, {}, 0))
    ledger.end("cola", 6, "finished", "", None)
    assert ledger.study("cola").best == 0, "while it runs, the search's best"
    assert ledger.settle("cola").best == 6
    assert ledger_with(LUCKY[:4]).settle("cola").planned == 4, "fewer finished than were to be run again"


def test_a_study_whose_reruns_all_failed_keeps_the_search_s_best() -> None:
    ledger = ledger_with((*SEARCH, again(3, 1, None, "failed")))
    ledger.end("cola", 3, "failed", "", None)
    assert ledger.settle("cola").best == 0
