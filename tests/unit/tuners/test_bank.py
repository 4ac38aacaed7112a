from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tuners.engine import bank as bank_module
from tuners.engine.bank import Bank, Row, Update, gather, rounded
from tuners.engine.method import Segment, normal, zeros

CPU = torch.device("cpu")


def row(seed: int, size: int = 37) -> Row:
    made = Row([Segment("b", (5,), zeros, decay=False), Segment("w", (size,), normal(1.0))], CPU)
    made.theta[: made.size] = torch.randn(made.size, generator=torch.Generator().manual_seed(seed))
    return made


def by_row(bank: Bank, numbers: Sequence[Update]) -> None:
    bank.update(bank.norms(), numbers)


def together(bank: Bank, numbers: Sequence[Update]) -> None:
    """As on a device: `Bank.update` goes by where its tensors are."""
    clips = [min(1.0, each.clip_norm / (norm + 1e-6)) for norm, each in zip(bank.norms(), numbers, strict=True)]
    for one in bank.rows:
        one.step += 1
    bank._update_together(numbers, clips)


WAYS = pytest.mark.parametrize("update_rows", [by_row, together])


@WAYS
def test_rows_are_updated_as_torch_does_it_each_with_its_own_numbers(update_rows: Any) -> None:
    rows = [row(0), row(1), row(2, size=900)]
    numbers = [Update(1e-2, 0.1, 1.0), Update(3e-1, 0.0, 0.5), Update(1e-3, 0.5, 100.0)]
    rivals = []
    for one, update in zip(rows, numbers, strict=True):
        views = {name: values.clone().requires_grad_() for name, values in one.views(one.theta).items()}
        groups = [{"params": [views["w"]], "weight_decay": update.weight_decay}]
        groups.append({"params": [views["b"]], "weight_decay": 0.0})
        rivals.append((views, torch.optim.AdamW(groups, lr=update.learning_rate)))
    banks = gather(rows)
    assert [bank.rows for bank in banks] == [(rows[0], rows[1]), (rows[2],)]
    draw = torch.Generator().manual_seed(9)
    for _ in range(20):
        for one, (views, optimiser), update in zip(rows, rivals, numbers, strict=True):
            one.g[: one.size] = torch.randn(one.size, generator=draw)
            for name, values in one.views(one.g).items():
                views[name].grad = values.clone()
            norm = torch.nn.utils.clip_grad_norm_(list(views.values()), update.clip_norm)
            assert torch.linalg.vector_norm(one.g) == pytest.approx(float(norm))
            optimiser.step()
        for bank in banks:
            update_rows(bank, [numbers[rows.index(one)] for one in bank.rows])
            assert not bank.gradients.any()
    for one, (views, _) in zip(rows, rivals, strict=True):
        for name, values in one.views(one.theta).items():
            torch.testing.assert_close(values, views[name].detach(), rtol=1e-5, atol=1e-6)
        assert not one.theta[one.size :].any()


@WAYS
def test_a_row_of_nan_leaves_its_neighbours_bit_identical(update_rows: Any) -> None:
    found = []
    for value in (1.0, float("nan")):
        rows = [row(0), row(1), row(2)]
        (bank,) = gather(rows)
        for one in rows:
            one.g.fill_(0.3)
        rows[1].g.fill_(value)
        update_rows(bank, [Update(1e-2, 0.1, 1.0)] * 3)
        found.append([one.theta.clone() for one in (rows[0], rows[2])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@WAYS
def test_a_row_is_updated_beside_others_as_alone_bit_by_bit(update_rows: Any) -> None:
    found = []
    for seeds in ((1,), (0, 1, 2)):
        rows = [row(seed, size=900) for seed in seeds]
        (bank,) = gather(rows)
        for one, seed in zip(rows, seeds, strict=True):
            one.g[: one.size] = one.theta[: one.size].sin() * seed
        update_rows(bank, [Update(1e-2 * (1 + seed), 0.1, 1.0 + seed) for seed in seeds])
        found.append(rows[seeds.index(1)].theta.clone())
    assert torch.equal(*found)


@WAYS
def test_an_update_in_pieces_is_that_of_the_whole(update_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for block in (1 << 17, 64):
        monkeypatch.setitem(bank_module._BLOCK, "cpu", block)
        one = row(3, size=1000)
        (bank,) = gather([one])
        for _ in range(3):
            one.g[: one.size] = one.theta[: one.size].cos()
            update_rows(bank, [Update(1e-2, 0.1, 1.0)])
        found.append((one.theta, one.m, one.v))
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-9)


def test_a_step_begins_with_gradients_of_zero_whatever_the_last_one_left() -> None:
    rows = [row(0), row(1)]
    (bank,) = gather(rows)
    bank.gradients.fill_(float("nan"))
    bank.update(bank.norms(), [Update(1e-2, 0.1, 1.0)] * 2)
    bank.zero_gradients()
    assert not bank.gradients[:, : rows[0].size].any()
    # A step that broke off has left something, and no update has followed.
    bank.gradients.fill_(float("nan"))
    bank.zero_gradients()
    assert not bank.gradients.any()


@pytest.mark.parametrize("size", [1, 64, 65, 257, 1000, 73_728, 74_498, 1_000_001])
def test_widths_waste_at_most_a_quarter(size: int) -> None:
    width = rounded(size)
    assert width % 64 == 0
    assert size <= width <= max(64, size + size // 4 + 64)
