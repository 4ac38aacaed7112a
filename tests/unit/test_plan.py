from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tuners.config import CheckpointConfig, TrainConfig
from tunery import tasks
from tunery.errors import SpecError
from tunery.plan import Plan, compile_plan, run_id
from tunery.spec import Choice, SearchSpec, Spec, parse_spec

BASE = """\
apiVersion: tunery/v1
kind: Sweep
name: sweep
model: {id: bert-base-uncased}
tasks: [cola, rte]
tuner: {method: lora, rank: 8}
train: {learning_rate: 1.0e-4}
search:
  trials: 4
  space:
    tuner.rank: {choice: [4, 8]}
    train.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}
"""


def spec_of(more: str = "", *sets: str) -> Spec:
    return parse_spec(BASE + more, file="x.yaml", overrides=sets)


def plan_of(more: str = "", *sets: str) -> Plan:
    return compile_plan(spec_of(more, *sets))


def test_a_study_a_task() -> None:
    plan = plan_of()
    assert [study.name for study in plan.studies] == ["cola", "rte"]
    assert [study.registry_name for study in plan.studies] == ["sweep-cola", "sweep-rte"]
    assert plan.trials == 8


class TestTrain:
    """Where a study's training settings come from: override, cell, spec, task, TrainConfig, in that order."""

    def test_what_the_spec_gives_stands(self) -> None:
        assert all(study.train.learning_rate == 1e-4 for study in plan_of().studies)

    def test_what_it_leaves_out_is_the_tasks_own(self) -> None:
        defaults = tasks.get("rte").defaults
        assert defaults["train.batch_size"] != TrainConfig().batch_size, "the test needs a task that differs"
        rte = plan_of().studies[1]
        assert rte.train.batch_size == defaults["train.batch_size"]
        assert rte.train.epochs == defaults["train.epochs"]
        assert rte.train.clip_norm == TrainConfig().clip_norm

    def test_checkpoints_of_one_task_are_set_apart_from_the_others(self) -> None:
        given = "overrides: {cola: {train.checkpoint.keep: 7}}\n"
        for sets in ((), ("train.checkpoint={every_steps: 50}",)):
            cola, rte = plan_of(given, *sets).studies
            every = 50 if sets else 0
            assert cola.train.checkpoint == CheckpointConfig(every_steps=every, keep=7)
            assert rte.train.checkpoint == CheckpointConfig(every_steps=every, keep=2)

    def test_a_value_that_equals_trainconfigs_default_is_given_too(self) -> None:
        own = TrainConfig().batch_size
        assert plan_of("", f"train.batch_size={own}").studies[1].train.batch_size == own

    def test_an_override_is_for_its_task_only(self) -> None:
        cola, rte = plan_of("overrides: {rte: {train.batch_size: 7, search.trials: 2, data.max_train: 9}}\n").studies
        assert (rte.train.batch_size, rte.search.trials, rte.data.max_train) == (7, 2, 9)
        assert cola.train.batch_size != 7
        assert (cola.search.trials, cola.data.max_train) == (4, None)

    def test_all_of_it_survives_being_written_and_read(self) -> None:
        plan = plan_of("matrix: {tuner.method: [lora, qlora]}\n")
        again = Plan.model_validate_json(plan.model_dump_json())
        assert again == plan
        assert compile_plan(again.spec) == plan
        assert type(again.studies[1].tuner) is type(plan.studies[1].tuner)


class TestMatrix:
    """A study a combination."""

    def test_every_task_gets_every_cell(self) -> None:
        plan = plan_of("matrix: {train.schedule: [linear, cosine], train.seed: [1, 2]}\n")
        assert len(plan.studies) == 8
        assert len({study.name for study in plan.studies}) == 8
        assert plan.studies[0].name == "cola-schedule-linear-seed-1"
        assert plan.studies[0].cell == {"train.schedule": "linear", "train.seed": 1}
        assert {(s.train.schedule, s.train.seed) for s in plan.studies if s.task == "rte"} == {
            ("linear", 1), ("linear", 2), ("cosine", 1), ("cosine", 2),
        }  # fmt: skip

    def test_a_method_keeps_the_fields_it_has(self) -> None:
        plan = plan_of(
            "matrix: {tuner.method: [lora, qlora]}\n", "tuner.method=qlora", "tuner.double_quantisation=false"
        )
        lora, qlora = plan.studies[0].tuner, plan.studies[2].tuner
        assert (lora.method, qlora.method) == ("lora", "qlora")
        assert lora.model_dump()["rank"] == qlora.model_dump()["rank"] == 8
        assert qlora.model_dump()["double_quantisation"] is False

    def test_lists_and_models_can_be_compared(self) -> None:
        plan = plan_of("matrix: {tuner.target_modules: [[query], [key, value]], model.id: [a/b, c/d]}\n")
        last = plan.studies[-1]
        assert last.model.id == "c/d"
        assert last.tuner.model_dump()["target_modules"] == ("key", "value")
        assert last.cell == {"tuner.target_modules": "key+value", "model.id": "c/d"}

    def test_cells_with_alike_or_long_words_keep_apart(self) -> None:
        long = "x" * 90
        plan = plan_of(f"matrix: {{model.id: [a/B, a/b, a-b, {long}1, {long}2]}}\n", "tasks=[cola]")
        names = [study.name for study in plan.studies]
        assert len(set(names)) == 5
        assert all(len(name) <= 80 and name == name.lower() for name in names)

    def test_a_cell_can_be_part_of_the_models_name(self) -> None:
        more = "registry: {name: '{name}-{method}-{task}-{cell}'}\n"
        assert plan_of(more).studies[0].registry_name == "sweep-lora-cola"
        celled = plan_of(more + "matrix: {train.seed: [1, 2]}\n")
        assert celled.studies[-1].registry_name == "sweep-lora-rte-seed-2"


class TestRunId:
    """The same for the same content."""

    def test_is_the_name_and_a_digest(self) -> None:
        assert run_id(spec_of()) == plan_of().run_id
        assert run_id(spec_of()).startswith("sweep-")
        assert len(run_id(spec_of())) == len("sweep-") + 8

    def test_changes_with_anything_in_the_spec(self) -> None:
        sets = ["train.epochs=9", "search.sampler.seed=1", "registry.alias=best", "resources.packs=2", "data.seed=1"]
        assert len({run_id(spec_of()), *(run_id(spec_of("", change)) for change in sets)}) == len(sets) + 1

    def test_does_not_change_with_comments_order_or_defaults(self) -> None:
        reordered = "# hello\n" + "\n".join(reversed(BASE.split("search:")[0].strip().split("\n"))) + "\nsearch:"
        text = reordered + BASE.split("search:")[1] + "resources: {packs: auto}\n"
        assert run_id(parse_spec(text, file="y")) == run_id(spec_of())


class TestTrial:
    """A draw over the study's own values."""

    def test_is_the_study_with_the_draw(self) -> None:
        study = plan_of().studies[0]
        trial = study.trial({"tuner.rank": 4, "train.learning_rate": 5e-4})
        assert trial.tuner.model_dump() == study.tuner.model_dump() | {"rank": 4}
        assert trial.train == study.train.model_copy(update={"learning_rate": 5e-4})

    @pytest.mark.parametrize(
        ("draw", "message"),
        [
            ({"tuner.rank": 0}, "a trial of cola: tuner.rank: expected a value at least 1, got 0"),
            ({"train.epochs": 1.5}, "a trial of cola: train.epochs: expected a whole number, got 1.5"),
            ({"train.bogus": 1}, "a trial of cola: unknown path 'train.bogus'"),
        ],
    )
    def test_is_validated(self, draw: Mapping[str, Any], message: str) -> None:
        with pytest.raises(SpecError) as caught:
            plan_of().studies[0].trial(draw)
        assert str(caught.value) == message

    def test_the_default_draw_is_the_studys_own_values_where_they_can_be_drawn(self) -> None:
        assert plan_of().studies[0].default_draw() == {"tuner.rank": 8, "train.learning_rate": 1e-4}
        outside = plan_of("", "tuner.rank=16", "train.learning_rate=0.5").studies[0]
        assert outside.default_draw() == {}


class TestEstimate:
    """What a study will take."""

    def test_counts_rows_and_tokens(self) -> None:
        plan = plan_of("", "data.max_train=1000", "data.max_eval=100", "tasks=[cola]", "train.epochs=2")
        found = plan.estimates[0]
        per_example = tasks.get("cola").tokens_per_example
        assert (found.train_rows, found.eval_rows) == (1000, 100)
        assert found.tokens_per_epoch == round(1000 * per_example)
        assert found.tokens == found.tokens_per_epoch * 2 * 4

    def test_takes_the_most_epochs_that_can_be_drawn(self) -> None:
        few = plan_of("", "train.epochs=2").estimates[0]
        drawn = plan_of("", "train.epochs=2", "search.space.train.epochs={int_uniform: [1, 5]}").estimates[0]
        assert few.tokens is not None
        assert drawn.tokens == few.tokens / 2 * 5

    def test_an_input_is_no_longer_than_max_length(self) -> None:
        found = plan_of("", "train.max_length=4", "data.max_train=10").estimates[0]
        assert found.tokens_per_epoch == 40

    def test_a_smaller_part_of_the_rows_is_never_more_than_all(self) -> None:
        found = plan_of("", "data.max_train=1000000", "tasks=[rte]").estimates[0]
        assert found.train_rows == tasks.get("rte").rows["train"]

    def test_a_side_network_is_counted_with_what_is_kept_beside_it(self) -> None:
        plan = plan_of("", "tuner={method: qst}", "search={}", "model.id=meta-llama/Llama-3.2-3B")
        found = plan.estimates[0]
        assert found.seat_bytes == 16 * (14_501_597 + 2 * 3073)
        assert (
            plan.pack_bytes == (found.base_bytes or 0) + (1024 << 20) + plan.seats(plan.studies[0]) * found.seat_bytes
        )

    def test_the_largest_rank_decides_a_seat(self) -> None:
        # query and value of 12 layers, 768 wide; 2 outputs; 16 bytes a trained parameter
        assert plan_of().estimates[0].seat_bytes == 16 * (8 * 12 * 2 * 2 * 768 + 2 * 769)

    def test_moments_in_8_bits_are_counted_as_such(self) -> None:
        (wide,), (narrow,) = (
            plan_of("", *more, "tasks=[cola]").estimates for more in ([], ["train.optimizer=adamw_8bit"])
        )
        trained = 8 * 12 * 2 * 2 * 768 + 2 * 769
        assert wide.seat_parameters == narrow.seat_parameters == trained
        assert (wide.seat_bytes, narrow.seat_bytes) == (16 * trained, round((10 + 2 / 64) * trained))

    def test_a_quantised_base_is_smaller(self) -> None:
        wide, narrow = (plan_of("", f"tuner.method={method}").estimates[0].base_bytes for method in ("lora", "qlora"))
        assert wide is not None
        assert narrow is not None
        assert wide == 4 * (plan_of().estimates[0].base_parameters or 0)
        assert narrow < wide / 2

    def test_an_unknown_model_has_an_unknown_size(self) -> None:
        plan = plan_of("", "model.id=someone/unknown")
        assert plan.estimates[0].base_bytes is None
        assert plan.pack_bytes is None
        assert plan.estimates[0].tokens_per_epoch is not None

    def test_a_pack_is_the_base_and_its_seats(self) -> None:
        plan = plan_of("", "resources.seats=3", "tasks=[cola]")
        found = plan.estimates[0]
        assert plan.pack_bytes == (found.base_bytes or 0) + 3 * (found.seat_bytes or 0)

    def test_workers_share_the_base_and_each_holds_all_seats(self) -> None:
        plan = plan_of("", "resources.seats=3", "resources.workers=4", "tasks=[cola]")
        found = plan.estimates[0]
        assert plan.pack_bytes == -(-(found.base_bytes or 0) // 4) + 3 * (found.seat_bytes or 0)


def test_a_spec_made_in_python_is_checked_too() -> None:
    search = SearchSpec(trials=2, space={"tuner.rank": Choice(choice=(0, 4))})
    with pytest.raises(SpecError, match=r"spec 'sweep': tuner\.rank: expected a value at least 1, got 0"):
        compile_plan(spec_of().model_copy(update={"search": search}))
