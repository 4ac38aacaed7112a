"""What the run's own record says of its evaluations, and what they took."""

from __future__ import annotations

from pathlib import Path

from tunery.cluster.tracking import Tracker
from tunery.report.documents.curves import Curves, read
from tunery.runs import RunFolder

NONE: dict[str, str] = {}


def begin(tracker: Tracker, number: int, at_s: float) -> None:
    tracker.trial_started("cola", number, params={}, tags={}, at_ms=int(at_s * 1000))


def evaluate(tracker: Tracker, number: int, step: int, at_s: float) -> None:
    tracker.metrics("cola", number, {"loss": 1 / step}, step=step, at_ms=int(at_s * 1000))


def end(tracker: Tracker, number: int, at_s: float) -> None:
    tracker.trial_ended("cola", number, status="FINISHED", at_ms=int(at_s * 1000))


def test_a_run_that_has_not_begun_has_none(tmp_path: Path) -> None:
    assert read(RunFolder(tmp_path)) == Curves()


def test_evaluations_have_their_cost_and_a_pause_between_two_drivers_has_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    tracker = Tracker(folder.spool)
    tracker.study_started("cola", experiment="e", run_name="r", tags=NONE, params=NONE, files={}, at_ms=0)
    begin(tracker, 0, 10)
    evaluate(tracker, 0, 5, 30)
    evaluate(tracker, 0, 10, 50)
    begin(tracker, 0, 1050)  # the driver died at some time after 50, and was started again long afterwards
    evaluate(tracker, 0, 15, 1070)
    end(tracker, 0, 1075)
    tracker.close()
    curves = read(folder)
    assert [(p.step, p.at_s, p.cost_s) for p in curves.of("cola", 0)] == [(5, 30, 20), (10, 50, 40), (15, 1070, 60)]
    assert curves.of("cola", 0)[0].values == {"loss": 0.2}
    assert curves.seconds == {("cola", 0): 65.0}
    assert curves.studies == {"cola"}
    assert curves.of("cola", 1) == ()


def test_what_is_recalled_after_a_restart_costs_nothing_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    tracker = Tracker(folder.spool)
    begin(tracker, 3, 500)
    evaluate(tracker, 3, 5, 40)  # its checkpoint's report has the time at which it was made
    end(tracker, 3, 500)
    tracker.close()
    assert read(folder).seconds == {("cola", 3): 0.0}


def test_lines_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    tracker = Tracker(folder.spool)
    begin(tracker, 0, 1)
    evaluate(tracker, 0, 5, 2)
    tracker.close()
    records = folder.spool / "records.jsonl"
    records.write_bytes(b"not json\n" + records.read_bytes() + b'{"kind": "met')
    assert len(read(folder).of("cola", 0)) == 1
