"""Attention that forms its probabilities, beside torch's own and beside autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tuners.engine import plain_attention as module
from tuners.engine.plain_attention import SHORT, Dropout, plain_attention
from tuners.engine.streams import pair_keys

N, H, D, P = 3, 2, 8, 0.25


def drawn(length: int, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v as a model has them, tokens before heads in memory; and a gradient."""
    draw = torch.Generator().manual_seed(0)
    found = [torch.randn(N, length, H, D, generator=draw, dtype=torch.float64).to(dtype) for _ in range(4)]
    return [x.transpose(1, 2) for x in found]


def with_gradients(attention: Any, drawn: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The result and the gradients of q, k and v, in float64."""
    q, k, v = (x.to(dtype).requires_grad_() for x in drawn[:3])
    out = attention(q, k, v)
    return [x.detach().double() for x in (out, *torch.autograd.grad(out, (q, k, v), drawn[3].to(dtype)))]


def plain(
    mask: Tensor | None = None,
    *,
    lengths: list[int] | None = None,
    causal: bool = False,
    dropout: Dropout | None = None,
) -> Any:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        real = lengths or [q.shape[2]] * N
        return plain_attention(q, k, v, lengths=real, mask=mask, causal=causal, scale=D**-0.5, dropout=dropout)

    return attention


def one_by_one(mask: Tensor | None, *, causal: bool, dropout: Dropout | None) -> Any:
    """The same by autograd."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(2, 3) * D**-0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[2:], dtype=torch.bool).triu(1), float("-inf"))
        kept = torch.ones_like(scores)
        if dropout:
            kept = (dropout.keep(slice(None), q.shape[2]) != 0).view(scores.shape).to(q.dtype) / (1 - P)
        return torch.matmul(scores.softmax(-1) * kept, v)

    return attention


@pytest.mark.parametrize("length", [1, 8, SHORT + 8])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_are_those_of_autograd(
    length: int, causal: bool, masked: bool, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module._PIECE, "cpu", 2 * length**2 - 1)  # a head at a time, of the short ones all
    real = torch.tensor([length, max(1, length - 3), max(1, length // 2)])
    counts = torch.arange(length) < real[:, None]
    # Causal attention needs no mask: what is padded comes later than all that counts.
    mask = counts.view(N, 1, 1, length) if masked and not causal else None
    dropout = Dropout(pair_keys(torch.tensor([5, 6, 7]), 1, H), P) if dropped else None
    *args, gradient = drawn(length, torch.float64)
    read = counts.view(N, 1, length, 1) if masked else torch.ones(N, 1, length, 1, dtype=torch.bool)
    args.append(gradient * read)  # of what is not read there is none
    lengths = real.tolist() if masked else None
    found = with_gradients(plain(mask, lengths=lengths, causal=causal, dropout=dropout), args, torch.float64)
    expected = with_gradients(one_by_one(mask, causal=causal, dropout=dropout), args, torch.float64)
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one * read, other * read, rtol=1e-12, atol=1e-12)


def test_on_a_cpu_no_piece_is_wider_than_its_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._PIECE, "cpu", 2 * 264**2)
    parts = list(module._parts(torch.Size([2, 3, 264, D]), (257, 131), torch.device("cpu")))
    assert parts == [
        (slice(0, 2), 264, 257), (slice(2, 3), 264, 257),
        (slice(3, 6), 136, 131),
    ]  # fmt: skip


@pytest.mark.parametrize("length", [8, 64, SHORT])
def test_short_sequences_in_16_bits_are_as_exact_as_in_torchs_attention(length: int) -> None:
    q, k, v, g = drawn(length, torch.bfloat16)
    args = [q * 3, k * 3, v, g]  # scores large enough for a softmax that decides
    exact = with_gradients(scaled_dot_product_attention, args, torch.float64)

    def errors(attention: Any) -> list[float]:
        found = with_gradients(attention, args, torch.bfloat16)
        return [float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)]

    for ours, torchs in zip(errors(plain()), errors(scaled_dot_product_attention), strict=True):
        assert ours < 3e-3  # what rounding the result to 8 bits costs: 2**-9, on average less
        assert ours < 1.2 * torchs


def test_nothing_leaks_between_sequences() -> None:
    args = drawn(8, torch.float32)
    wild = [x.clone() for x in args]
    wild[0][1] = float("nan")
    found, tame = (with_gradients(plain(causal=True), each, torch.float32) for each in (wild, args))
    for one, other in zip(found, tame, strict=True):
        assert one[1].isnan().any()
        assert torch.equal(one[[0, 2]], other[[0, 2]])
