from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tuners.engine.streams import keep_pairs, masked, mix, pair_keys, permutation, row_keys, token_keys
from tuners.engine.streams import keep_rows as bits


def keep_rows(*arguments: Any) -> torch.Tensor:
    """bool: the mask of bits is all or nothing."""
    keep = bits(*arguments)
    assert keep.dtype == torch.int16
    assert bool(((keep == 0) | (keep == -1)).all())
    return keep.bool()


def keys(seed: int = 1, step: int = 0, rows: int = 400) -> torch.Tensor:
    return torch.from_numpy(row_keys(seed, step, np.arange(rows)))


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_a_mask_drops_the_share_it_is_asked_to(p: float) -> None:
    keep = keep_rows(keys(), 3, 384, p)
    assert keep.shape == (400, 384)
    spread = (p * (1 - p) / keep.numel()) ** 0.5
    assert abs(1 - keep.float().mean().item() - p) < 4 * spread
    # Neither a column nor a row is favoured.
    assert (1 - keep.float().mean(0) - p).abs().max() < 5 * (p * (1 - p) / 400) ** 0.5
    assert (1 - keep.float().mean(1) - p).abs().max() < 5 * (p * (1 - p) / 384) ** 0.5


@pytest.mark.parametrize("other", [(2, 0, 3), (1, 1, 3), (1, 0, 4)], ids=["seed", "step", "site"])
def test_masks_of_other_seeds_steps_and_sites_are_independent(other: tuple[int, int, int]) -> None:
    a = keep_rows(keys(), 3, 384, 0.5).float() - 0.5
    seed, step, site = other
    b = keep_rows(keys(seed, step), site, 384, 0.5).float() - 0.5
    assert abs((a * b).mean().item()) < 4 * 0.25 / a.numel() ** 0.5


def test_neighbouring_elements_rows_and_positions_are_independent() -> None:
    a = keep_rows(keys(), 3, 384, 0.5).float() - 0.5
    for shifted in (a[:, 1:] * a[:, :-1], a[1:] * a[:-1], a[:, 4:] * a[:, :-4]):
        assert abs(shifted.mean().item()) < 4 * 0.25 / shifted.numel() ** 0.5
    sequence = np.zeros(400, np.int64)
    tokens = torch.from_numpy(token_keys(keys().numpy(), sequence, np.arange(400)))
    b = keep_rows(tokens, 3, 384, 0.5).float() - 0.5
    assert abs((b[1:] * b[:-1]).mean().item()) < 4 * 0.25 / b.numel() ** 0.5


def test_a_row_keeps_its_mask_whatever_stands_beside_it() -> None:
    together = keep_rows(keys(), 3, 384, 0.1)
    assert torch.equal(keep_rows(keys()[17:19], 3, 384, 0.1), together[17:19])
    assert torch.equal(keep_rows(torch.from_numpy(row_keys(1, 0, np.array([18]))), 3, 384, 0.1)[0], together[18])


def test_attention_masks_do_not_depend_on_the_length_of_the_bucket() -> None:
    of_pairs = pair_keys(keys(rows=5), 2, 4)
    long, short = keep_pairs(of_pairs, 23, 0.1), keep_pairs(of_pairs, 9, 0.1)
    assert long.shape == (5 * 4, 23, 23)
    assert torch.equal(long[..., :9, :9], short)
    assert torch.equal(keep_pairs(of_pairs[7:9], 23, 0.1), long[7:9])
    assert abs(1 - keep_pairs(pair_keys(keys(), 2, 4), 30, 0.1).bool().float().mean().item() - 0.1) < 0.002


def test_widths_that_are_no_multiple_of_the_lanes() -> None:
    assert torch.equal(keep_rows(keys(), 3, 7, 0.5), keep_rows(keys(), 3, 8, 0.5)[:, :7])


def test_masked_has_the_gradient_of_a_product() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    keep = bits(keys(rows=6), 1, 4, 0.5)
    assert torch.autograd.gradcheck(lambda values: masked(values, keep, 0.5), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masked_is_a_product_in_every_type(dtype: torch.dtype) -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    keep = bits(keys(rows=6), 1, 8, 0.5)
    assert torch.equal(masked(x, keep, 0.5), x * keep.bool() * 2)
    assert torch.equal(masked(x[:, ::2], keep[:, ::2], 0.5), masked(x, keep, 0.5)[:, ::2])


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    first, second = permutation(7, 0, 100), permutation(7, 1, 100)
    assert sorted(first) == list(range(100)) == sorted(second)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, permutation(7, 0, 100))


def test_keys_differ_by_order_and_sign() -> None:
    assert len({mix(1, 2), mix(2, 1), mix(1), mix(1, 2, 0), mix(-1, 2)}) == 5
