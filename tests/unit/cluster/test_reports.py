"""What a checkpoint holds of a seat's reports."""

from __future__ import annotations

from tests.unit.cluster.at_the_desk import report
from tunery.cluster.reports import Counted, read_reports, write_reports


def test_reports_are_read_as_they_were_written() -> None:
    reports = [report(0), report(1, final=True)]
    assert read_reports(write_reports(reports)) == reports


def test_counting_goes_on_to_the_last_digit() -> None:
    losses = [0.1 * number for number in range(1, 8)]
    whole, first = Counted(), Counted()
    for loss in losses:
        whole.add(loss=loss, examples=4, tokens=31, seconds=0.1)
    for loss in losses[:3]:
        first.add(loss=loss, examples=4, tokens=31, seconds=0.1)
    second = Counted.from_bytes(first.to_bytes())
    for loss in losses[3:]:
        second.add(loss=loss, examples=4, tokens=31, seconds=0.1)
    assert second == whole
    assert second.loss == sum(losses) / 7


def test_before_the_first_step_nothing_is_divided_by_zero() -> None:
    nothing = Counted()
    assert (nothing.loss, nothing.examples_per_s, nothing.tokens_per_s) == (0.0, 0.0, 0.0)
