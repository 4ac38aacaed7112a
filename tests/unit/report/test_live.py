"""The live table and its lines, drawn from states."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.unit.report.states import MIXED, NOW, state, study, trial
from tunery.report import live
from tunery.runs import RunState


def drawn(run: RunState, *, width: int = 80, height: int = 40) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    console.print(live.progress(run, now=NOW, width=width, height=height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


ONE = state(study(trials=MIXED, best=3))
NINE = state(
    *(study(name, tuple(trial(n, "running", 0.1 * n) for n in range(8)), best=7, planned=16) for name in "abcdefghi"),
    phase="tokenising qqp",
)


def test_a_small_run_shows_all_its_trials() -> None:
    lines = drawn(ONE)
    assert lines[0] == "● glue-0123abcd  running"
    assert lines[1] == "  3 of 5 trials · 1:00 · about 0:26 left"
    assert lines[2] == "  best mcc 0.7000 by trial 3 (rank 7, learning_rate 2.9e-04)"
    rows = [line.split() for line in lines[5:]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3] == ["3", "●", "running", "pack-0", "━━━━━", "1.5/3", "0.7000", "1,234", "0:30"]
    assert rows[1][-2:] == ["0.9/3", "0.3000"]


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("run", [ONE, NINE, state(status="starting", phase="starting Ray")])
def test_nothing_is_wider_than_the_screen_or_cut_that_should_not_be(run: RunState, width: int) -> None:
    lines = drawn(run, width=width)
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)


def test_a_stopped_trial_is_not_counted_as_done() -> None:
    two = study(trials=(trial(0, "finished", 0.5), trial(1, "stopped", 0.4)), status="stopped")
    lines = drawn(state(two, two.model_copy(update={"name": "sst2"}), status="stopped"))
    assert "2 of 4 trials" in lines[1]
    (row, *_) = [line.split() for line in lines if line.split()[:1] == ["cola"]]
    assert row[:5] == ["cola", "■", "stopped", "━━━━━━━", "1/2"], "1.4 of 2"


@pytest.mark.parametrize("height", [24, 40])
def test_many_trials_fit_the_screen_and_the_rest_is_counted(height: int) -> None:
    lines = drawn(NINE, height=height)
    assert len(lines) <= height
    assert lines[-1].startswith("and ")
    assert lines[-1].endswith(" running")
    assert len([line for line in lines if line.split()[1:2] == ["●"]]) == 9, "every study is there"


def test_what_runs_is_shown_before_what_has_ended_where_room_is_short() -> None:
    trials = (*(trial(n, "finished", 0.1) for n in range(30)), trial(30, "running", 0.2))
    text = "\n".join(drawn(state(study(trials=trials)), height=15))
    assert "● running" in text


def test_a_wide_screen_shows_the_draws() -> None:
    assert "rank 7, learning_rate 2.9e-04" in drawn(ONE, width=120)[8]
    assert "rank" not in drawn(ONE, width=80)[8]


def test_a_long_name_of_a_metric_does_not_take_the_numbers_room() -> None:
    lines = drawn(state(study(trials=MIXED, best=3, objective="mean(pearson, spearman)")))
    assert "objective" in lines[4]
    assert "best mean(pearson, spearman) 0.7000" in lines[2]


def test_silence_is_told() -> None:
    assert "last news" not in drawn(state(study(trials=MIXED), updated_at=NOW - 30))[1]
    assert "last news 2:00 ago" in drawn(state(study(trials=MIXED), updated_at=NOW - 120))[1]


def test_clocks_that_differ_do_not_make_nonsense() -> None:
    text = "\n".join(drawn(state(study(trials=(trial(0, "running", started_at=NOW + 3600),)), started_at=NOW + 3600)))
    assert "-" not in text.replace("glue-0123abcd", "").replace("pack-0", "")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (state(study(trials=(trial(0, "finished"), trial(1, "waiting")))), 60.0),
        (state(study(trials=(trial(0, "running"), trial(1, "running")))), 60.0),
        (state(study(trials=(trial(0, "pruned"), trial(1, "failed"), trial(2, "waiting")))), 30.0),
        (state(study(trials=(trial(0, "finished"),), planned=3)), 120.0),
        (state(study(trials=(trial(0, "waiting"),))), None),
        (state(study(trials=(trial(0, "finished"),)), status="finished"), None),
        (state(), None),
    ],
)
def test_the_time_left(run: RunState, expected: float | None) -> None:
    assert live.time_left(run, now=NOW) == (pytest.approx(expected) if expected is not None else None)


def test_a_pause_is_no_work() -> None:
    # A minute of work, an hour without a driver, a minute of work: half is done.
    going, stopped = trial(0, "running"), trial(1, "stopped", ended_at=NOW - 5, started_at=NOW - 65)
    before = state(study(trials=(going, stopped, trial(2, "finished"))), ended_at=NOW)
    after = before.resumed(NOW + 3600)
    assert after.seconds(NOW + 3660) == pytest.approx(120)
    assert [each.seconds(NOW + 3660) for each in after.studies[0].trials] == pytest.approx([90, 120, 20])
    halfway = state(study(trials=(going,))).resumed(NOW + 3600)
    assert live.time_left(halfway, now=NOW + 3660) == pytest.approx(120)


def test_news_tells_each_event_once() -> None:
    before = state(study(trials=(trial(0, "waiting"), trial(1, "running"))), phase="training")
    after = state(study(trials=(trial(0, "running"), trial(1, "running", 0.5))), phase="training")
    ended = state(study(trials=(trial(0, "failed"), trial(1, "finished", 0.5)), best=1, status="finished"))
    assert list(live.news(None, before)) == ["training", "cola trial 1: starts; rank 5, learning_rate 2.9e-04"]
    assert list(live.news(before, after)) == [
        "cola trial 0: starts; rank 4, learning_rate 2.9e-04",
        "cola trial 1: mcc 0.5000 at epoch 1.5/3",
    ]
    assert list(live.news(after, after)) == []
    assert list(live.news(after, ended)) == [
        "cola trial 0: failed; loss is nan at step 12",
        "cola trial 1: finished; mcc 0.5000, epoch 3/3",
        "cola: finished; mcc 0.5000 by trial 1 (rank 5, learning_rate 2.9e-04)",
    ]
