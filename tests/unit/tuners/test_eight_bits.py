from __future__ import annotations

from dataclasses import replace
from typing import Any

import bitsandbytes
import pytest
import torch

from tuners.engine import Base, BaseSpec, Pack, SeatState
from tuners.engine.bank import Row, Update, gather
from tuners.engine.method import Segment, normal, zeros
from tuners.errors import SeatError
from tuners.needs import advice

CPU = torch.device("cpu")
WIDE = {"rank": 64, "target_modules": ("query", "value", "dense")}
"""Adapters with weights of 64 x 64 values and more: enough for 8 bits."""


def row(seed: int, optimizer: Any = "adamw_8bit") -> Row:
    segments = [
        Segment("bias", (6000,), zeros, decay=False),
        Segment("small", (63, 64), normal(1.0)),
        Segment("large", (64, 64), normal(1.0)),
        Segment("larger", (64, 160), normal(1.0)),
    ]
    made = Row(segments, CPU, optimizer=optimizer)
    made.theta[: made.size] = torch.randn(made.size, generator=torch.Generator().manual_seed(seed))
    return made


def test_rows_are_updated_as_bitsandbytes_does_it_each_with_its_own_numbers() -> None:
    rows = [row(0), row(1), row(2, "adamw")]
    numbers = [Update(1e-2, 0.1, 1.0), Update(3e-3, 0.0, 0.5), Update(1e-3, 0.5, 100.0)]
    rivals = []
    for one, update in zip(rows, numbers, strict=True):
        views = {name: values.clone().requires_grad_() for name, values in one.views(one.theta).items()}
        decayed = [views[name] for name in ("small", "large", "larger")]
        optimiser = bitsandbytes.optim.AdamW8bit if one.quantised else torch.optim.AdamW
        # bitsandbytes counts the values alone: what is no weight is told to it by another optimiser.
        rival = optimiser([{"params": decayed, "weight_decay": update.weight_decay}], lr=update.learning_rate)
        rest = torch.optim.AdamW([views["bias"]], lr=update.learning_rate, weight_decay=0.0)
        rivals.append((views, (rival, rest)))
    banks = gather(rows)
    assert [bank.rows for bank in banks] == [(rows[0], rows[1]), (rows[2],)]
    draw = torch.Generator().manual_seed(9)
    for _ in range(20):
        for one, (views, optimisers), update in zip(rows, rivals, numbers, strict=True):
            one.g[: one.size] = torch.randn(one.size, generator=draw)
            for name, values in one.views(one.g).items():
                views[name].grad = values.clone()
            torch.nn.utils.clip_grad_norm_(list(views.values()), update.clip_norm)
            for each in optimisers:
                each.step()
        for bank in banks:
            bank.update(bank.norms(), [numbers[rows.index(one)] for one in bank.rows])
    for one, (views, _) in zip(rows, rivals, strict=True):
        for name, values in one.views(one.theta).items():
            # A clip's last bit may put a moment into the neighbouring one of 256 levels: few values, and by little.
            apart = (values - views[name].detach()).abs()
            assert float((apart > 1e-5).float().mean()) < 0.01, name
            assert float(apart.max()) < 2e-2, name


def test_the_moments_of_large_weights_take_two_bytes_a_parameter() -> None:
    plain, quantised = row(0, "adamw"), row(0)
    large = 64 * 64 + 64 * 160
    assert (plain.quantised, quantised.quantised, plain.large) == (0, large, large)
    taken = sum(values.nbytes for values in quantised.moments.values())
    assert taken == 2 * (large + large // 256 * 4) + 2 * 4 * (63 * 64 + 6000)
    assert sum(values.nbytes for values in plain.moments.values()) == 2 * 4 * plain.size


def test_it_learns_as_with_float32_moments(base_of: Any, seat: Any) -> None:
    losses = {}
    for optimizer in ("adamw", "adamw_8bit"):
        pack = Pack(base_of("bert"))
        pack.join(seat("a", optimizer=optimizer, epochs=6, **WIDE))
        losses[optimizer] = [pack.step()["a"].loss for _ in range(pack.progress("a").steps)]
    exact, rounded = (torch.tensor(values) for values in losses.values())
    assert not torch.equal(exact, rounded)
    assert exact[0] == rounded[0], "the first step's loss is before any update"
    assert float((exact - rounded).abs().max()) < 0.05
    assert float(rounded[-3:].mean()) < float(rounded[:3].mean()) - 0.1


def test_seats_of_both_kinds_train_as_alone(base_of: Any, seat: Any) -> None:
    fields = {"a": {"optimizer": "adamw_8bit", "seed": 1}, "b": {"optimizer": "adamw", "seed": 2}}
    fields["c"] = {"optimizer": "adamw_8bit", "seed": 3}
    together = Pack(base_of("bert"))
    for name, own in fields.items():
        together.join(seat(name, **WIDE, **own))
    found: dict[str, list[float]] = {name: [] for name in fields}
    for _ in range(8):
        for name, report in together.step().items():
            found[name].append(report.loss)
    for name, own in fields.items():
        alone = Pack(base_of("bert"))
        alone.join(seat(name, **WIDE, **own))
        # A last bit may choose another of a moment's 256 levels.
        assert [alone.step()[name].loss for _ in range(8)] == pytest.approx(found[name], abs=1e-4)


def test_a_seat_goes_on_elsewhere_as_if_it_had_stayed(base_of: Any, seat: Any) -> None:
    spec = seat("a", optimizer="adamw_8bit", **WIDE)
    stays, elsewhere = Pack(base_of("bert")), Pack(base_of("bert"))
    stays.join(spec)
    for _ in range(4):
        stays.step()
    saved = stays.state("a").to_bytes()
    elsewhere.join(spec, SeatState.from_bytes(saved))
    for _ in range(4):
        assert stays.step() == elsewhere.step()
    for key, values in stays.state("a").tensors.items():
        assert torch.equal(values, elsewhere.state("a").tensors[key]), key


def test_another_optimiser_takes_the_weights_and_no_moments(base_of: Any, seat: Any) -> None:
    mixed = WIDE | {"rank": 48}  # between its large weights there are small ones
    given = Pack(base_of("bert"))
    given.join(seat("a", **mixed))
    given.step()
    state = given.state("a")
    spec = seat("a", optimizer="adamw_8bit", **mixed)
    with pytest.raises(SeatError, match="has the moments of adamw; this seat has adamw_8bit"):
        Pack(base_of("bert")).join(spec, state)
    begun = Pack(base_of("bert"))
    begun.join(spec, state.begun_anew())
    mine, theirs = begun._seats["a"].row, given._seats["a"].row
    assert [segment.name for segment in mine.segments] != [segment.name for segment in theirs.segments]
    for name, values in mine.views(mine.theta).items():
        assert torch.equal(values, theirs.views(theirs.theta)[name]), name
    assert not any(values.any() for values in mine.moments.values())


def test_a_seat_that_breaks_changes_no_bit_of_its_neighbour(base_of: Any, seat: Any) -> None:
    thetas = []
    for rate in (1e-3, 1e30):
        pack = Pack(base_of("bert"))
        for name, own in (("a", 1e-3), ("b", rate)):
            pack.join(seat(name, optimizer="adamw_8bit", learning_rate=own, **WIDE))
        for _ in range(3):
            pack.step()
        thetas.append(pack.state("a").tensors["theta"])
    assert torch.equal(*thetas)


def test_paged_moments_need_a_device_that_has_pages(tiny: Any, seat: Any) -> None:
    with pytest.raises(SeatError, match="paged_adamw_8bit needs a CUDA device, this one is cpu: use adamw_8bit"):
        Pack(Base.load(BaseSpec(tiny("bert")), "cpu")).join(seat("a", optimizer="paged_adamw_8bit"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="paged memory is CUDA's")
def test_paged_moments_are_the_same(tiny: Any, seat: Any) -> None:
    losses = []
    for optimizer in ("adamw_8bit", "paged_adamw_8bit"):
        pack = Pack(Base.load(BaseSpec(tiny("bert")), "cuda"))
        pack.join(seat("a", optimizer=optimizer, **WIDE))
        losses.append([pack.step()["a"].loss for _ in range(8)])
    assert losses[0] == losses[1]


def test_eight_bits_are_foreseen_and_advised(base_of: Any, seat: Any) -> None:
    plain, quantised = Pack(base_of("bert")), Pack(base_of("bert"))
    plain.join(seat("a", **WIDE))
    quantised.join(seat("a", optimizer="adamw_8bit", **WIDE))
    assert plain.need is not None
    assert quantised.need is not None
    assert plain.need.seat_8bit == quantised.need.seat == quantised.need.seat_8bit
    assert quantised.need.seat < 0.65 * plain.need.seat
    tight = replace(plain.need, recomputed=None)
    limit = tight.least - (tight.seat - (tight.seat_8bit or 0)) // 2
    assert "train.optimizer: adamw_8bit" in [change.what for change in advice(tight, limit)]
