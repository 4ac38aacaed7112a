"""What is said to be better, by how much, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit.report.states import study, trial
from tunery.errors import NotFoundError
from tunery.report.documents.answers import answers
from tunery.report.documents.curves import Curves
from tunery.report.documents.facts import Facts, collect
from tunery.runs import RunState, StudyState, TrialState

PACK = {"peak_memory_bytes": 2.5e9, "loss": 0.25}


def run(*studies: StudyState) -> RunState:
    return RunState(run_id="m-0123abcd", name="m", status="finished", studies=studies, updated_at=1.0)


def cell(
    score: float | None, where: Mapping[str, object], seeds: tuple[float, ...] = (), *, direction: str = "maximise"
) -> StudyState:
    """A study of one trial, with reruns of it; without a score it has failed."""
    if score is None:
        trials: tuple[TrialState, ...] = (trial(0, "failed"),)
    else:
        found = [trial(0, "finished", score, metrics=PACK)]
        again = enumerate(seeds, start=1)
        found += [trial(number, "finished", value, rerun_of=0, metrics=PACK) for number, value in again]
        trials = tuple(found)
    return study(
        "cola-" + "-".join(map(str, where.values())),
        trials,
        task="cola",
        cell=where,
        best=None if score is None else 0,
        direction=direction,
        status="failed" if score is None else "finished",
        error="every trial failed: no room\nand more" if score is None else "",
    )


def told(*studies: StudyState) -> dict[str, list[str]]:
    facts = collect(run(*studies), None, Curves())
    return {answer.question: list(answer.lines) for answer in answers(facts)}


LORA, QLORA = {"tuner.method": "lora"}, {"tuner.method": "qlora"}


def test_means_over_seeds_are_compared_and_the_deviation_decides() -> None:
    lines = told(cell(0.9, LORA, (0.70, 0.72)), cell(0.8, QLORA, (0.60, 0.62)))["cola: what does tuner.method change?"]
    assert lines[0] == (
        "lora is better than qlora by 0.1000: mcc 0.7100 and 0.6100, means over 2 other seeds each. "
        "That is beyond the deviation over seeds, 0.0200."  # the root of 2 * 0.0141 ** 2
    )


def test_a_difference_within_the_deviation_may_be_chance() -> None:
    lines = told(cell(0.9, LORA, (0.60, 0.70)), cell(0.8, QLORA, (0.62, 0.66)))["cola: what does tuner.method change?"]
    assert "is better than qlora by 0.0100" in lines[0]
    assert lines[0].endswith("That is within the deviation over seeds, 0.0762: it may be chance.")


def test_one_seed_cannot_tell_and_the_best_trials_are_compared() -> None:
    lines = told(cell(0.7, LORA), cell(0.8, QLORA, (0.6, 0.62)))["cola: what does tuner.method change?"]
    assert lines[0].startswith("qlora is better than lora by 0.1000: mcc 0.8000 and 0.7000. Whether that is more than ")
    assert "cola-lora has no deviation over seeds (search.rerun_best trains" in lines[0]


def test_less_is_better_where_the_study_says_so() -> None:
    worse, better = cell(0.7, LORA, direction="minimise"), cell(0.6, QLORA, direction="minimise")
    lines = told(worse, better)["cola: what does tuner.method change?"]
    assert lines[0].startswith("qlora is better than lora by 0.1000: mcc 0.6000 and 0.7000.")


def test_equal_scores_are_called_equal() -> None:
    lines = told(cell(0.7, LORA), cell(0.7, QLORA))["cola: what does tuner.method change?"]
    assert lines[0].startswith("lora and qlora are equal in mcc 0.7000 and 0.7000.")


def test_amounts_of_data_are_compared_step_by_step_in_their_order() -> None:
    sizes = [(5000, 0.75), (2000, 0.70), (20000, 0.74)]
    lines = told(*(cell(score, {"data.max_train": size}) for size, score in sizes))[
        "cola: what does data.max_train change?"
    ]
    assert lines[0].startswith("max_train from 2000 to 5000: better by 0.0500, mcc 0.7000 to 0.7500.")
    assert lines[1].startswith("max_train from 5000 to 20000: worse by 0.0100, mcc 0.7500 to 0.7400.")
    assert lines[-1] == (
        "In all, of 2 comparisons: the larger is better in 1, by 0.0500 on average, the smaller is better in 1, by "
        "0.0100 on average; 0 of them beyond the deviation over seeds; 2 without a deviation over seeds."
    )


def test_each_cell_of_the_rest_is_compared_by_itself_with_its_cost() -> None:
    studies = [
        cell(score, {**method, "data.max_train": size})
        for method, scores in ((LORA, (0.70, 0.75)), (QLORA, (0.68, 0.76)))
        for size, score in zip((2000, 5000), scores, strict=True)
    ]
    lines = told(*studies)["cola: what does tuner.method change?"]
    assert lines[0].startswith("With max_train 2000: lora is better than qlora by 0.0200")
    assert lines[1] == (
        "Cost with max_train 2000: lora took 20.0 s for 1 trial, 2.50 GB at the peak; "
        "qlora took 20.0 s for 1 trial, 2.50 GB at the peak."
    )
    assert lines[2].startswith("With max_train 5000: qlora is better than lora by 0.0100")
    assert lines[-1].startswith(
        "In all, of 2 comparisons: lora is better in 1, by 0.0200 on average, qlora is better in 1"
    )


def test_a_cell_without_a_result_is_named_with_its_reason() -> None:
    found = told(cell(0.7, LORA), cell(None, QLORA))
    assert list(found) == ["cola: what is best?"], "one value is left: there is nothing to compare"
    assert found["cola: what is best?"][-1] == "No result of cola-qlora: failed, every trial failed: no room."


def test_the_best_of_a_task_with_its_gain_over_the_spec() -> None:
    first = trial(0, "finished", 0.70, origin="spec")
    found = told(study("cola", (first, trial(1, "finished", 0.74)), best=1, model="m-cola", model_version="2",
                       champion=False, verdict="it gains nothing"))["cola: what is best?"]  # fmt: skip
    assert found[0].startswith("The best: mcc 0.7400 by trial 1 (rank 5, learning_rate 2.9e-04). It took 40.0 s for 2")
    assert found[1] == "The search gained 0.0400 over the spec's own values, which gave 0.7000 (trial 0)."
    assert found[2] == "m-cola version 2 is not the champion: it gains nothing."


def test_a_best_by_its_mean_that_a_single_run_of_the_spec_beat_is_no_gain() -> None:
    first = trial(0, "finished", 0.90, origin="spec")
    found = told(study("cola", (first, trial(1, "finished", 0.89)), best=1))["cola: what is best?"]
    assert found[1] == (
        "The spec's own values gave 0.9000 (trial 0) in their one run, 0.0100 more than the best by mean."
    )


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_run_without_a_result_has_nothing_to_report(value: float | None) -> None:
    state = run(study("cola", (trial(0, "finished", value), trial(1, "failed"))))
    with pytest.raises(NotFoundError, match=r"run m-0123abcd \(finished\) has no trial with a result"):
        collect(state, None, Curves())


def test_values_that_differ_make_an_axis_and_numbers_are_in_order() -> None:
    facts = Facts(run(*(cell(0.5, {"train.seed": n, **LORA}) for n in (3, 1, 2))))
    assert facts.axes == {"train.seed": (1, 2, 3)}
    assert [facts.label(result) for result in facts.results] == ["seed 3", "seed 1", "seed 2"]


def test_models_go_by_the_last_part_of_their_name_where_that_tells_them_apart() -> None:
    def said(*models: str) -> list[str]:
        facts = Facts(run(*(cell(0.5, {"model.id": model}) for model in models)))
        return [facts.label(result) for result in facts.results]

    assert said("/models/小", "Qwen/Qwen3-0.6B") == ["model 小", "model Qwen3-0.6B"]
    assert said("a/base", "b/base") == ["model a/base", "model b/base"]
