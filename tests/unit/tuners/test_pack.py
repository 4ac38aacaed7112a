from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tuners.engine import Example, Pack, SeatState
from tuners.errors import SeatError, TunerError
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

STEPS = 50

MIXED: list[dict[str, Any]] = [
    {"rank": 4, "seed": 1, "batch_size": 8, "dropout": 0.1},
    {"rank": 16, "seed": 2, "batch_size": 5, "accumulation": 3, "classes": 3, "schedule": "cosine"},
    {"rank": 1, "seed": 3, "batch_size": 2, "classes": 1, "weight_decay": 0.1},
    {"rank": 8, "seed": 4, "batch_size": 13, "dropout": 0.3, "warmup_ratio": 0.2},
]


ROUNDING = {"float32": 3e-5, "float64": 1e-11}
"""Other shapes add up in another order, and training carries the last bits on. In float64 nothing else is left."""
JOINED = {"float32": 4e-6, "float64": 1e-12}
"""The same over the few steps in which others come and go, where less has been carried on."""


def packed(base: Any, seat: Any, fields: dict[str, dict[str, Any]], **options: Any) -> Pack:
    pack = Pack(base, **options)
    for name, values in fields.items():
        pack.join(seat(name, **values))
    return pack


def run(pack: Pack, steps: int) -> dict[str, list[float]]:
    """Each seat's losses."""
    losses: dict[str, list[float]] = {name: [] for name in pack.seats}
    for _ in range(steps):
        for name, report in pack.step().items():
            losses[name].append(report.loss)
    return losses


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_a_seat_alone_is_the_seat_in_a_pack(family: str, dtype: str, base_of: Any, seat: Any) -> None:
    fields = {str(number): values for number, values in enumerate(MIXED)}
    if family == "qwen2":
        fields["1"] = fields["1"] | {"target_modules": ("gate_proj", "down_proj", "k_proj")}
    base = base_of(family, dtype=dtype)
    together = run(packed(base, seat, fields), STEPS)
    for name, values in fields.items():
        alone = run(packed(base, seat, {name: values}), STEPS)[name]
        assert len(alone) == STEPS
        assert alone == pytest.approx(together[name], abs=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_how_a_step_is_cut_changes_nothing(dtype: str, base_of: Any, seat: Any) -> None:
    fields = {str(number): values for number, values in enumerate(MIXED)}
    base = base_of("bert", dtype=dtype)
    whole = run(packed(base, seat, fields), 20)
    cut = run(packed(base, seat, fields, max_tokens=16), 20)
    for name, losses in whole.items():
        assert cut[name] == pytest.approx(losses, abs=ROUNDING[dtype])


def test_memory_that_runs_out_halves_the_forwards_and_says_so(
    base_of: Any, seat: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {str(number): values for number, values in enumerate(MIXED)}
    whole = run(packed(base_of("bert"), seat, fields), 5)
    pack = packed(base_of("bert"), seat, fields, max_tokens=400)
    real = pack._forward

    def limited(parts: Any, batches: Any, tallies: Any) -> None:
        real(parts, batches, tallies)
        if sum(len(e.ids) for name, low, high in parts for e in batches[name].examples[low:high]) > 100:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(pack, "_forward", limited)
    found = run(pack, 5)
    assert pack.max_tokens == 100
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory: forwards are bounded to {bound} tokens from now on" for bound in (200, 100)
    ]
    for name, losses in whole.items():
        assert found[name] == pytest.approx(losses, abs=ROUNDING["float32"])


class Labelled:
    """A regression whose labels are all the same value."""

    def __init__(self, examples: Any, label: float) -> None:
        self._examples, self._label, self.lengths = examples, label, examples.lengths

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example: Example = self._examples[index]
        return example._replace(label=self._label)


def _poison_weight(value: float) -> Callable[[Pack], None]:
    def poison(pack: Pack) -> None:
        row = pack._seats["bad"].row
        row.theta[: row.size : 7] = value

    return poison


@pytest.mark.parametrize(
    ("family", "dtype", "quantisation"),
    [
        ("bert", "float32", "none"),
        ("bert", "bfloat16", "none"),
        ("llama", "float32", "none"),
        ("llama", "float32", "nf4-double"),
    ],
)
@pytest.mark.parametrize(
    ("fields", "poison"),
    [
        ({"learning_rate": 1e30}, None),
        ({"learning_rate": 1e12}, None),
        ({"classes": 1, "label": math.nan}, None),
        ({"classes": 1, "label": math.inf}, None),
        ({}, _poison_weight(math.nan)),
        ({}, _poison_weight(math.inf)),
    ],
    ids=["rate-1e30", "rate-1e12", "label-nan", "label-inf", "weights-nan", "weights-inf"],
)
def test_a_diverged_seat_leaves_its_neighbours_bit_identical(
    fields: dict[str, Any],
    poison: Callable[[Pack], None] | None,
    family: str,
    dtype: str,
    quantisation: str,
    base_of: Any,
    seat: Any,
    sentences: Any,
) -> None:
    fields = dict(fields)
    if "label" in fields:
        fields["train_set"] = Labelled(sentences(40, seed=1, classes=1), fields.pop("label"))
    config = LoraConfig if quantisation == "none" else QloraConfig
    good = {"config": config, "rank": 4, "seed": 1, "dropout": 0.1}
    other = {"config": config, "rank": 4, "seed": 2, "classes": 3}
    common = {"config": config, "rank": 4, "seed": 9, "classes": fields.get("classes", 2)}
    base = base_of(family, dtype=dtype, quantisation=quantisation)

    def run_with(fields: dict[str, Any], poison: Any, leave_at: int | None) -> tuple[Any, int]:
        pack = packed(base, seat, {"a": good, "bad": common | fields, "b": other})
        ended = leave_at
        for step in range(12):
            if step == leave_at:
                pack.leave("bad")
            if step == 2 and poison is not None:
                poison(pack)
            reports = pack.step()
            if "bad" in reports and reports["bad"].diverged:
                ended = step + 1
        assert ended is not None
        return {name: pack.state(name).tensors for name in ("a", "b")}, ended

    with_bad, ended = run_with(fields, poison, None)
    assert ended < 12
    with_healthy, _ = run_with({}, None, ended)
    for name in ("a", "b"):
        for key in ("theta", "m", "v"):
            assert torch.equal(with_bad[name][key], with_healthy[name][key]), (name, key)
            assert torch.isfinite(with_bad[name][key]).all()


def test_a_diverged_seat_says_why_and_is_not_computed_any_more(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"a": {}, "bad": {"learning_rate": 1e30}})
    reports = [pack.step() for _ in range(6)]
    said = [report["bad"].diverged for report in reports if "bad" in report]
    assert all(not text for text in said[:-1])
    assert "nan" in said[-1] or "inf" in said[-1] or "exactly 0" in said[-1] or "same" in said[-1]
    assert len(said) < 6
    assert all("a" in report and not report["a"].diverged for report in reports)
    assert pack.seats == ("a", "bad")


@pytest.mark.parametrize("family", ["bert", "llama", "qwen2"])
def test_a_rate_that_kills_a_seat_is_found_though_the_loss_may_stay_finite(
    family: str, base_of: Any, seat: Any
) -> None:
    # With RMS norms it sits at ln 2 for ever: the loss alone does not tell.
    pack = packed(base_of(family), seat, {"bad": {"learning_rate": 1e9, "rank": 4, "schedule": "constant"}})
    reports = [report for _ in range(20) if (report := pack.step().get("bad"))]
    assert reports[-1].diverged
    if family != "bert":
        assert reports[-1].loss == pytest.approx(math.log(2))
        assert reports[-1].diverged == "the gradient has been exactly 0 for 3 steps"


def test_a_dead_gradient_is_a_divergence(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"dead": {"learning_rate": 1e-30}})
    view = pack._seats["dead"].row
    view.views(view.theta)["classifier.weight"].zero_()
    view.views(view.theta)["classifier.bias"].copy_(torch.tensor([60.0, -60.0]))
    zeros = dataclasses.replace(pack._seats["dead"].spec, train_set=Constant())
    pack._seats["dead"].spec = zeros
    said = [pack.step()["dead"].diverged for _ in range(3)]
    assert said == ["", "", "the gradient has been exactly 0 for 3 steps"]
    assert pack.step() == {}


class Constant:
    """Every example has label 0."""

    lengths = np.full(40, 6, np.int32)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Example:
        return Example(np.array([2, 5 + index, 7, 8, 9, 3], np.int32), None, 0.0)


def test_constant_logits_are_a_divergence(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"dead": {"learning_rate": 1e-30}, "a": {}})
    view = pack._seats["dead"].row
    view.views(view.theta)["classifier.weight"].zero_()
    said = [pack.step()["dead"].diverged for _ in range(5)]
    assert said == ["", "", "", "", "the logits have been the same for all examples for 5 steps"]
    assert list(pack.step()) == ["a"]


def test_a_label_that_is_no_class_fails_its_seat_only(base_of: Any, seat: Any, sentences: Any) -> None:
    pack = packed(base_of("bert"), seat, {"a": {}, "bad": {"train_set": sentences(40, classes=5)}})
    reports: dict[str, Any] = {}
    while "bad" in (step := pack.step()):
        reports = step
    assert "is none of the 2 classes" in reports["bad"].diverged
    assert math.isfinite(reports["a"].loss)


@pytest.mark.parametrize("beside", [(), ("b",)], ids=["alone", "in company"])
def test_a_seat_that_moves_ends_as_if_it_had_stayed(beside: tuple[str, ...], base_of: Any, seat: Any) -> None:
    names = ("a", *beside)
    fields = {name: MIXED[place] | {"epochs": 4, "batch_size": 6} for place, name in enumerate(names)}
    stays = packed(base_of("bert"), seat, fields)
    run(stays, 9)
    pack = packed(base_of("bert"), seat, fields)
    run(pack, 4)
    saved = {name: pack.state(name).to_bytes() for name in names}
    elsewhere = Pack(base_of("bert"))
    for name in names:
        elsewhere.join(seat(name, **fields[name]), SeatState.from_bytes(saved[name]))
        assert elsewhere.progress(name).step == 4
    run(elsewhere, 5)
    for name in names:
        for key, values in stays.state(name).tensors.items():
            assert torch.equal(values, elsewhere.state(name).tensors[key]), (name, key)
        assert elsewhere.progress(name) == stays.progress(name)


def test_bytes_that_are_no_state_are_refused(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"a": {"rank": 2}})
    data = pack.state("a").to_bytes()
    for bad in (b"", b"rubbish" * 20, data[: len(data) // 2], data[:-1]):
        with pytest.raises(SeatError, match="not a seat's state"):
            SeatState.from_bytes(bad)
    with pytest.raises(SeatError, match=r"another configuration's: .*lora_A.* is 2 x 64 in it, here 3 x 64"):
        Pack(base_of("bert")).join(seat("a", rank=3), SeatState.from_bytes(data))


def test_a_seat_that_begins_anew_has_the_weights_and_nothing_else(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"a": {"rank": 2}})
    for _ in range(4):
        pack.step()
    given = pack.state("a")
    other = Pack(base_of("bert"))
    other.join(seat("b", rank=2, learning_rate=5e-3, seed=9), given.begun_anew())
    begun = other.state("b")
    assert torch.equal(begun.tensors["theta"], given.tensors["theta"])
    assert not begun.tensors["m"].any()
    assert not begun.tensors["v"].any()
    assert (other.progress("b").step, given.meta["step"]) == (0, 4), "what was given is as it was"
    assert given.tensors["m"].any()
    assert other.step()["b"].learning_rate == 5e-3


def test_a_finished_seat_rests_until_it_leaves(base_of: Any, seat: Any) -> None:
    pack = packed(base_of("bert"), seat, {"short": {"epochs": 1}, "long": {"epochs": 2, "rank": 8}})
    for _ in range(5):
        assert set(pack.step()) == {"short", "long"}
    assert pack.progress("short").finished
    assert pack.progress("short").evaluation_due
    before = pack.state("short").tensors["theta"]
    assert set(pack.step()) == {"long"}
    found = pack.evaluate(["short"])["short"]["dev"]
    assert not pack.progress("short").evaluation_due
    assert torch.equal(pack.state("short").tensors["theta"], before)
    pack.leave("short")
    assert pack.seats == ("long",)
    assert found.logits.shape == (21, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_seats_come_and_go_between_steps(family: str, dtype: str, base_of: Any, seat: Any) -> None:
    base = base_of(family, dtype=dtype)
    alone = run(packed(base, seat, {"a": MIXED[0]}), 12)["a"]
    pack = packed(base, seat, {"x": MIXED[1], "a": MIXED[0]})
    losses = run(pack, 4)["a"]
    pack.leave("x")
    losses += run(pack, 3)["a"]
    pack.join(seat("y", **MIXED[3]))
    losses += run(pack, 5)["a"]
    assert losses == pytest.approx(alone, abs=JOINED[dtype])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_evaluation_is_in_the_splits_order_and_the_same_in_company(family: str, base_of: Any, seat: Any) -> None:
    fields = {str(number): values for number, values in enumerate(MIXED)}
    pack = packed(base_of(family), seat, fields)
    run(pack, 3)
    together = pack.evaluate(pack.seats)
    for name in fields:
        alone = pack.evaluate([name])[name]["dev"]
        dev = pack._seats[name].spec.eval_sets["dev"]
        np.testing.assert_allclose(alone.logits, together[name]["dev"].logits, atol=1e-5)
        assert alone.labels.tolist() == [dev[index].label for index in range(21)]
        logits, labels = torch.from_numpy(alone.logits), torch.from_numpy(alone.labels)
        if fields[name].get("classes") == 1:
            expected = (logits[:, 0] - labels).square().mean()
        else:
            expected = torch.nn.functional.cross_entropy(logits, labels.long())
        assert alone.loss == pytest.approx(float(expected), abs=1e-5)


def test_progress_counts_parameters_and_epochs(base_of: Any, seat: Any) -> None:
    base = base_of("bert")
    pack = packed(base, seat, {"a": {"rank": 4, "batch_size": 6, "accumulation": 2, "epochs": 3}})
    progress = pack.progress("a")
    assert (progress.step, progress.steps, progress.epoch, progress.finished) == (0, 12, 0.0, False)
    assert progress.trainable == 2 * 2 * 4 * (64 + 64) + 2 * 64 + 2
    assert progress.total == base.parameters + progress.trainable
    reports = [pack.step()["a"] for _ in range(4)]
    assert [report.examples for report in reports] == [12, 12, 12, 4]
    assert pack.progress("a").epoch == 1.0
    assert pack.progress("a").evaluation_due


def test_what_does_not_fit_is_refused_and_says_what_would(base_of: Any, seat: Any, sentences: Any) -> None:
    pack = packed(base_of("bert"), seat, {"a": {}})
    with pytest.raises(
        TunerError, match=r"target module 'q_proj' is no linear layer .* known: dense, key, query, value"
    ):
        pack.join(seat("b", target_modules=("query", "q_proj")))
    with pytest.raises(TunerError, match=r"rank 65 is above .* at most 64 fits"):
        pack.join(seat("b", rank=65))
    with pytest.raises(SeatError, match="an example of 70 tokens; at most 64 fit"):
        pack.join(seat("b", train_set=sentences(400, longest=70)))
    with pytest.raises(SeatError, match="'a' is taken"):
        pack.join(seat("a"))
    with pytest.raises(SeatError, match="no seat 'c' here; known: a"):
        pack.leave("c")
    with pytest.raises(SeatError, match="no training examples"):
        pack.join(seat("b", train_set=None, examples=0))
    assert pack.seats == ("a",)
    assert list(pack.step()) == ["a"]
