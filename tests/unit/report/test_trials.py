"""Trials side by side, best first in the task's own direction."""

from __future__ import annotations

import math

import pytest

from tests.unit.report.states import MIXED, NOW, state, study, trial
from tests.unit.report.test_result import text
from tunery import tasks
from tunery.report import trials, words


def test_best_first_and_those_without_a_value_last() -> None:
    mixed = (*MIXED, trial(5, "failed", math.nan), trial(6, "finished", 0.7))
    assert [each.number for each in trials.ranked(study(trials=mixed))] == [3, 6, 0, 1, 2, 4, 5]


def test_a_loss_is_ranked_the_other_way() -> None:
    loss = study(trials=MIXED).model_copy(update={"direction": "minimise"})
    assert [each.number for each in trials.ranked(loss)] == [1, 0, 3, 2, 4]
    assert "less is better" in text(trials.comparison([loss]))


def test_the_table_marks_the_default_and_tells_why_one_failed() -> None:
    default = {"cola": MIXED[0].config}
    said = text(trials.comparison([study(trials=MIXED, best=3)], default), width=80)
    lines = said.splitlines()
    assert lines[0] == "cola  mcc, more is better"
    assert [line.split()[0] for line in lines[2:7]] == ["3", "*0", "1", "2", "4"]
    assert "* the values that the spec itself gives" in said
    assert "  trial 2: loss is nan at step 12" in said
    assert "and a trace" not in said
    assert "* the values" not in text(trials.comparison([study(trials=MIXED)]))


def test_on_a_narrow_screen_the_last_metrics_give_way_and_no_value_is_cut() -> None:
    narrow, wide = (text(trials.comparison([study(trials=MIXED, best=3)]), width=width) for width in (80, 120))
    for said in (narrow, wide):
        assert "0.7000" in said
        assert "2.9e-04" in said
        assert max(len(line) for line in said.splitlines()) <= 80 or said is wide
    assert "no room for precision, recall" in narrow
    assert "precision" not in narrow.splitlines()[1]
    assert "no room" not in wide
    assert "recall" in wide.splitlines()[1]


def test_the_document_holds_what_the_table_shows() -> None:
    document = trials.document(state(study(trials=MIXED, best=3)), {"cola": MIXED[0].config})
    (only,) = document["studies"]
    assert (only["direction"], only["best"], only["objective"]) == ("maximise", 3, "mcc")
    rows = only["trials"]
    assert [row["trial"] for row in rows] == [3, 0, 1, 2, 4]
    assert [row["trial"] for row in rows if row["default"]] == [0]
    assert rows[1]["seconds"] == 20.0
    assert rows[3]["error"].startswith("loss is nan")


RERUN = (
    trial(0, "finished", 0.5),
    trial(1, "finished", 0.6, origin="registry glue-cola/3"),
    trial(2, "finished", 0.58, rerun_of=1, origin="trial 1"),
    trial(3, "finished", 0.62, rerun_of=1, origin="trial 1"),
    trial(4, "failed", rerun_of=0, origin="trial 0"),
)


def test_configurations_that_were_run_again_have_a_table_of_their_own() -> None:
    said = text(trials.comparison([study(trials=RERUN, best=3)]), width=80).splitlines()
    assert "trial 1: the values of glue-cola/3" in said
    start = said.index("run again with other seeds, best mean first")
    assert said[start + 1].split() == ["trial", "mean", "deviation", "seeds", "rank", "learning_rate", "runs"]
    assert said[start + 2].split() == ["1", "0.6000", "0.0283", "2", "5", "2.9e-04", "2,", "3"]
    assert said[start + 3].split()[:4] == ["0", "–", "–", "0"]
    assert said[start + 3].endswith("1 failed")
    assert "run again" not in text(trials.comparison([study(trials=MIXED)]))


def test_the_document_has_the_means() -> None:
    (only,) = trials.document(state(study(trials=RERUN, best=3)))["studies"]
    first, second = only["reruns"]
    assert (first["trial"], first["seeds"], first["runs"], first["failed"]) == (1, 2, [2, 3], 0)
    assert first["mean"] == pytest.approx(0.6)
    assert first["deviation"] == pytest.approx(0.04 / 2**0.5)
    assert (second["trial"], second["mean"], second["deviation"], second["failed"]) == (0, None, None, 1)
    origins = {row["trial"]: (row["origin"], row["rerun_of"]) for row in only["trials"]}
    assert origins[0] == ("sampler", None)
    assert origins[1] == ("registry glue-cola/3", None)
    assert origins[2] == ("trial 1", 1)
    assert trials.document(state(study(trials=MIXED)))["studies"][0]["reruns"] == []


def test_an_empty_default_marks_nothing() -> None:
    assert not trials.is_default(trial(0, "waiting"), {})
    assert not trials.is_default(trial(0, "waiting"), None)


def test_the_runs_table_keeps_ids_whole() -> None:
    long = state(*(study(name) for name in tasks.names()), run_id="a-rather-long-name-of-a-run-0123abcd")
    for line in text(trials.runs_table([long], now=NOW), width=80).splitlines()[1:]:
        assert "a-rather-long-name-of-a-run-0123abcd" in line


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "0.5000"), (None, "–"), (0.0, "0.0000"), (-0.25, "-0.2500"), (1234.5, "1234.5"), (1e-5, "1.00e-05")],
)
def test_numbers(value: float | None, said: str) -> None:
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(-3, "0:00"), (42, "0:42"), (725, "12:05"), (11220, "3:07:00"), (187200, "2d 4:00:00")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("per_second", "said"), [(None, ""), (1234.0, "1,234"), (12.4, "12"), (9.6, "10"), (9.4, "9.4"), (0.326, "0.33")]
)
def test_rates_of_slow_work_are_not_nothing(per_second: float | None, said: str) -> None:
    assert words.rate(per_second) == said


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (61, "1 min"), (7300, "2 h"), (200_000, "2 d")])
def test_ago(seconds: float, said: str) -> None:
    assert words.ago(seconds) == f"{said} ago"


def test_draws_are_short_unless_two_paths_end_alike() -> None:
    assert words.draw({"tuner.rank": 8, "train.seed": True, "x.none": None}) == "rank 8, seed true, none null"
    assert words.draw({"tuner.rank": 8, "other.rank": 0.5}) == "tuner.rank 8, other.rank 0.5"
