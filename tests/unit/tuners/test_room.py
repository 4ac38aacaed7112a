"""The memory of a pack: what is foreseen, what is refused, what happens when it runs out all the same."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.tuners.conftest import Sentences
from tuners.engine import Pack, estimate
from tuners.engine.estimate import Foresight, Kept, Load, counting_kept, step_tokens
from tuners.engine.plain_attention import SHORT, Dropout, plain_attention
from tuners.engine.streams import permutation
from tuners.errors import NoRoomError
from tuners.needs import SLACK, SLACK_OF_DIFFERING

MIB = 1 << 20


def test_what_autograd_keeps_is_counted_once_and_without_the_bases_own() -> None:
    weight, x = torch.randn(64, 64), torch.randn(32, 64, requires_grad=True)
    with counting_kept([weight]) as kept:
        y = (x @ weight).exp() * x
        assert kept() == Kept(2 * 32 * 64 * 4, 0)  # x, and the result of exp
    assert y.requires_grad


def test_what_attention_keeps_of_pairs_of_tokens_is_counted_apart() -> None:
    q = torch.randn(2, 3, 40, 8, requires_grad=True)
    with counting_kept([]) as kept:
        y = plain_attention(q, q, q, lengths=[40, 40], mask=None, causal=False, scale=1.0, dropout=None)
        assert kept() == Kept(3 * q.numel() * 4, 2 * 3 * 40 * 40 * 4)
    assert y.requires_grad


def test_of_long_sequences_nothing_is_kept_for_pairs_of_tokens() -> None:
    q = torch.randn(2, 3, SHORT + 8, 8, requires_grad=True)
    dropout = Dropout(torch.arange(6), 0.1)
    with counting_kept([]) as kept:
        y = plain_attention(q, q, q, lengths=[SHORT + 8] * 2, mask=None, causal=True, scale=1.0, dropout=dropout)
        assert kept() == Kept(3 * q.numel() * 4, 0)
    assert y.requires_grad


def test_longer_sequences_than_those_it_was_measured_on_keep_more_a_token(base_of: Any, seat: Any) -> None:
    # The same lengths; the first batch, on which it is measured, has the short ones or the long ones.
    class Sequences(Sentences):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(16)
            self.lengths[:] = second
            self.lengths[permutation(42, 0, 16)[:8]] = first
            self._rows = [np.full(length, 7, np.int32) for length in self.lengths]

    packs = [Pack(base_of("bert")) for _ in range(2)]
    for pack, lengths in zip(packs, [(8, 48), (48, 8)], strict=True):
        pack.join(seat("a", dropout=0.1, batch_size=8, seed=42, train_set=Sequences(*lengths)))
    short, long = (pack.footprint.activations for pack in packs)
    assert short == pytest.approx(long, rel=0.1)


@pytest.mark.parametrize("batch", [1, 7, 64, 200])
def test_a_steps_tokens_are_those_of_batches_without_replacement(batch: int) -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 60, 64).astype(np.int32)
    mean, variance = step_tokens(lengths, batch)
    size = min(batch, 64)
    sums = [draw.permutation(lengths)[:size].sum() for _ in range(4000)]
    assert mean == pytest.approx(float(np.mean(sums)), rel=0.02)
    assert variance == pytest.approx(float(np.var(sums)), rel=0.15, abs=1e-6)


def test_the_foreseen_bytes_are_those_of_the_largest_forward() -> None:
    foresight = Foresight(torch.device("cpu"))
    load = Load(bank=40_000, bank_8bit=18_000, tokens=100, variance=0, longest=30, token_bytes=1e5)
    one, two = (foresight.footprint([load] * count, 8192) for count in (1, 2))
    assert two.bank == 2 * one.bank == 2 * 1000 * 4 * 10
    assert two.activations == 2 * one.activations
    several = foresight.footprint([load] * 2, 100)
    assert one.activations < several.activations < two.activations, "several forwards leave pieces that do not fit"
    assert foresight.footprint([load], 5).activations == pytest.approx(0.3 * several.activations)


@pytest.mark.parametrize(("deviation", "slack"), [(0, SLACK), (100, SLACK), (120, SLACK_OF_DIFFERING)])
def test_steps_that_differ_by_much_leave_holes_that_the_next_does_not_fit_into(
    deviation: float, slack: dict[str, float]
) -> None:
    # 3 deviations are 60 and 72 MB.
    load = Load(bank=0, bank_8bit=0, tokens=1000, variance=deviation**2, longest=500, token_bytes=2e5)
    found = Foresight(torch.device("cpu")).footprint([load], 8192).activations
    assert found == pytest.approx((1000 + 3 * deviation) * 2e5 * slack["cpu"])


def test_a_limit_lets_through_what_is_foreseen_to_stay_within_it() -> None:
    foresight = Foresight(torch.device("cpu"))
    loads = [Load(bank=40_000, bank_8bit=18_000, tokens=100, variance=0, longest=30, token_bytes=1e5)] * 2
    for bound in (50, 150, 200):
        limit = foresight.footprint(loads, bound).peak + 1
        assert foresight.tokens_within(limit, loads, most=8192) == bound
    assert foresight.tokens_within(limit, loads, most=100) >= 100, "a step is cut all the same"
    assert foresight.footprint(loads, 100).peak <= limit
    assert foresight.tokens_within(foresight.footprint(loads, 0).fixed, loads, most=8192) < 1


def test_forwards_are_as_large_as_the_memory_allows(base_of: Any, seat: Any) -> None:
    free = Pack(base_of("bert"))
    for name in ("a", "b"):
        free.join(seat(name, dropout=0.1, batch_size=16))
    whole = free.footprint
    tight = Pack(base_of("bert"), memory=whole.fixed + whole.bank + whole.activations // 3 + 8 * MIB)
    for name in ("a", "b"):
        tight.join(seat(name, dropout=0.1, batch_size=16))
    assert tight.max_tokens < free.max_tokens
    assert tight.footprint.peak < whole.peak + 8 * MIB
    losses = [[report.loss for report in pack.step().values()] for pack in (free, tight)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    before = tight.max_tokens
    tight.leave("b")
    assert tight.max_tokens >= before


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have left with this process comes and goes, by more than what is refused here."""
    monkeypatch.setattr(estimate, "_taken", lambda _device: 500 * MIB)


@pytest.mark.usefixtures("steady")
def test_a_seat_that_does_not_fit_is_refused_and_the_others_stay(base_of: Any, seat: Any) -> None:
    wide = {"rank": 64, "target_modules": ("query", "key", "value", "dense")}
    free = Pack(base_of("bert"))
    free.join(seat("0", **wide))
    one = free.footprint
    pack = Pack(base_of("bert"), memory=one.fixed + 3 * one.bank + one.bank // 2 + 8 * MIB)
    with suppress(NoRoomError):
        for number in range(64):
            pack.join(seat(str(number), **wide))
    taken = len(pack.seats)
    assert 1 <= taken < 64
    expected = (
        rf"seat 'one more' does not fit: with {taken + 1} seats .* would fit: resources\.seats: {taken} \(\d+ MiB"
    )
    with pytest.raises(NoRoomError, match=expected):
        pack.join(seat("one more", **wide))
    assert len(pack.step()) == taken
    pack.leave("0")
    pack.join(seat("one more", **wide))


def advised(pack: Pack, spec: Any, what: str) -> str:
    """What the refusal of this seat says that a setting would have to be."""
    with pytest.raises(NoRoomError) as refused:
        pack.join(spec)
    found = re.search(rf"{re.escape(what)}: (\w+) \((\d+) MiB", str(refused.value))
    assert found, str(refused.value)
    return found[1]


@pytest.mark.usefixtures("steady")
def test_what_a_refusal_advises_does_fit(base_of: Any, seat: Any, sentences: Any) -> None:
    wide = {"rank": 64, "target_modules": ("query", "key", "value", "dense")}
    free = Pack(base_of("bert"))
    free.join(seat("a", **wide))
    whole = free.footprint
    tight = Pack(base_of("bert"), memory=whole.fixed + whole.bank // 3)
    rank = int(advised(tight, seat("a", **wide), "tuner.rank"))
    assert 1 <= rank < 64
    tight.join(seat("a", **wide | {"rank": rank}))

    long = {"train_set": sentences(40, longest=60), "batch_size": 8}
    free = Pack(base_of("bert"))
    free.join(seat("a", **long))
    least = free.need
    assert least is not None
    # The process may have grown a little meanwhile: what is said is about the activations.
    tight = Pack(base_of("bert"))
    fixed = tight.footprint.fixed
    tight = Pack(base_of("bert"), memory=fixed + least.seat + int(0.6 * least.longest * least.token))
    length = int(advised(tight, seat("a", **long), "train.max_length"))
    assert 16 <= length < 60
    tight.join(seat("a", **long | {"train_set": sentences(40, longest=length)}))


def test_a_need_is_what_was_foreseen(base_of: Any, seat: Any) -> None:
    pack = Pack(base_of("bert"), packs=3)
    assert pack.need is None
    for name in ("a", "b"):
        pack.join(seat(name, rank=16))
    need = pack.need
    assert need is not None
    assert (need.seats, need.packs, need.rank, need.adapter) == (2, 3, 16, None)
    least = pack._room._foresight.footprint(pack._room._loads.values(), 0)
    assert need.least == pytest.approx(least.peak, rel=0.001)
    assert need.peak == pytest.approx(pack.footprint.peak, rel=0.01)
    assert need.quantised is not None
    assert need.base - need.quantised == pytest.approx(2 * (4 * 64 * 64 + 2 * 64 * 128) * (4 - 0.5 - 1 / 64), rel=0.01)
    full = Pack(base_of("bert"))
    assert full.base.recomputed_bytes(1e6) == pytest.approx(5e5 + 2 * 64 * 4)


def test_memory_that_runs_out_on_a_cpu_halves_the_forwards() -> None:
    # A process with a bound of its own, so that torch's allocator fails as it does on a full machine.
    code = """
        import resource, torch
        from tuners.engine.room import ran_out
        torch.zeros(1)
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        try:
            torch.empty(16 << 30, dtype=torch.uint8)
        except RuntimeError as error:
            print(ran_out(error), ran_out(RuntimeError("shapes do not fit")))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["True", "False"]
