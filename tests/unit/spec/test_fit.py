from __future__ import annotations

import pytest

from tunery.errors import SpecError
from tunery.spec import parse_spec

SPEC = """apiVersion: tunery/v1
kind: Sweep
name: x
model: {id: HuggingFaceTB/SmolLM2-135M}
tasks: [cola, sst2]
tuner: {method: lora, rank: 8}
"""


def mistakes_of(text: str) -> list[str]:
    try:
        parse_spec(text, file="x.yaml")
    except SpecError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


LAYERS = "known: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("search: {trials: 2, space: {tuner.rank: {choice: [4, 192]}}}", []),
        (
            "search: {trials: 2, space: {tuner.rank: {choice: [4, 200]}}}",
            ["x.yaml:7:54: tuner.rank: 200 is above what v_proj of HuggingFaceTB/SmolLM2-135M (192 x 576) allows; "
             "at most 192 fits"],
        ),
        (
            "overrides: {sst2: {tuner.rank: 1000}}",
            ["x.yaml:7:32: tuner.rank: 1000 is above what v_proj of HuggingFaceTB/SmolLM2-135M (192 x 576) allows; "
             "at most 192 fits"],
        ),
        (
            "matrix: {tuner.target_modules: [[q_proj], [v_prok]]}",
            [f"x.yaml:7:44: target module 'v_prok' is no layer of HuggingFaceTB/SmolLM2-135M; "
             f"did you mean 'v_proj'? {LAYERS}"],
        ),
        (
            "matrix: {model.id: [Qwen/Qwen2.5-0.5B, google-bert/bert-base-cased], tuner.target_modules: [[q_proj]]}",
            ["x.yaml:7:94: target module 'q_proj' is no layer of google-bert/bert-base-cased; "
             "known: query, key, value, dense"],
        ),
        (
            "matrix: {tuner.method: [lora, qlora], tuner.modules_to_save: [[], [score, up_proj]]}",
            ["x.yaml:7:75: 'up_proj' of HuggingFaceTB/SmolLM2-135M cannot be trained whole: a base in 4 bits has no "
             "weights to train (method qlora): use method lora"],
        ),
        (
            "matrix: {tuner.modules_to_save: [[up_proj]]}\nresources: {workers: 2}",
            ["x.yaml:7:35: 'up_proj' of HuggingFaceTB/SmolLM2-135M cannot be trained whole: 2 workers have a part of "
             "the base's weights each: use resources.workers: 1"],
        ),
        ("matrix: {tuner.modules_to_save: [[up_proj]]}", []),
        ("overrides: {cola: {tuner.method: qlora}, sst2: {tuner.modules_to_save: [up_proj]}}", []),
        (
            "overrides: {sst2: {tuner.method: qlora, tuner.modules_to_save: [up_proj]}}",
            ["x.yaml:7:65: 'up_proj' of HuggingFaceTB/SmolLM2-135M cannot be trained whole: a base in 4 bits has no "
             "weights to train (method qlora): use method lora"],
        ),
        (
            "overrides: {sst2: {tuner.bias: lora_only}}\nresources: {workers: 2}",
            ["x.yaml:7:32: tuner.bias: lora_only trains the base's own weights, of which 2 workers have a part each: "
             "use bias none, or resources.workers: 1"],
        ),
    ],
)  # fmt: skip
def test_what_a_known_shape_cannot_take_is_a_mistake_with_its_place(line: str, expected: list[str]) -> None:
    assert mistakes_of(SPEC + line) == expected


def test_a_narrow_layer_counts_only_where_it_is_a_target() -> None:
    assert mistakes_of(SPEC.replace("rank: 8", "rank: 500, target_modules: [q_proj, down_proj]")) == []
    assert mistakes_of(SPEC.replace("rank: 8", "rank: 600, target_modules: [self_attn.q_proj, down_proj]")) == [
        "x.yaml:6:29: tuner.rank: 600 is above what down_proj of HuggingFaceTB/SmolLM2-135M (576 x 1536) allows; "
        "at most 576 fits"
    ]


def test_of_a_base_that_is_not_known_nothing_is_said() -> None:
    assert mistakes_of(SPEC.replace("HuggingFaceTB/SmolLM2-135M", "some/thing").replace("rank: 8", "rank: 4000")) == []
