"""The engine's speed at one number of seats, beside the roof, in turn in one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from benchmarks.steps import flops
from benchmarks.steps.flops import Attention, Batch, Linear
from benchmarks.steps.lengths import Lengths, Rows, rows
from benchmarks.steps.roof import Roof, synchronise
from tuners.config import Optimizer, TrainConfig, TunerConfig
from tuners.engine import Base, BaseSpec, HeadSpec, Pack, SeatSpec
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

Dtype = Literal["float32", "bfloat16"]
WARM_STEPS = 3
"""Steps before the clock starts, of fast ones: allocations, kernels compiled for new shapes."""
ROUNDS = 3
"""Turns of the engine and the roof."""
_ROWS = 256
"""Different rows of a seat; they come again every epoch."""


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    seats: int
    tokens_per_step: float
    """Of all seats."""
    step_s: float
    """Mean over the timed steps."""
    examples_per_s: float
    tokens_per_s: float
    flops_per_s: float
    """Of a step (`benchmarks.steps.flops`)."""
    roof_flops_per_s: float
    """Of the bare products of the same shapes, as fast as is known."""
    torch_flops_per_s: float
    """Of the same products, as torch computes them by itself."""
    steps: int
    """Timed."""

    @property
    def share(self) -> float:
        """Of the roof."""
        return self.flops_per_s / self.roof_flops_per_s

    @property
    def share_of_torch(self) -> float:
        """Of torch's own products; above 1 where faster ones are known."""
        return self.flops_per_s / self.torch_flops_per_s


def tuner(method: str, *, rank: int, targets: tuple[str, ...]) -> LoraConfig:
    """The adapter's configuration; `method` is one of `methods.METHODS`."""
    adapter: dict[str, Any] = {"rank": rank, "alpha": 2.0 * rank, "dropout": 0.0, "target_modules": targets}
    if method == "lora":
        return LoraConfig(**adapter)
    return QloraConfig(**adapter, dequantise="once" if method == "qlora-once" else "step")


def base_spec(folder: str, config: TunerConfig, *, dtype: Dtype, language: bool = False) -> BaseSpec:
    """The base that the method trains on."""
    return BaseSpec(
        folder,
        quantisation=config.quantisation,
        dequantised_once=config.dequantised_once,
        trained=config.trains_base,
        beside=config.trains_beside,
        language=language,
        dtype=dtype,
    )


def fill(
    pack: Pack,
    seats: int,
    lengths: Lengths,
    config: TunerConfig,
    *,
    batch_size: int,
    optimizer: Optimizer = "adamw",
    answers: bool = False,
) -> tuple[Rows, ...]:
    """Seat so many trials, of two classes or (`answers`) that generate; their rows."""
    vocabulary = int(pack.base.config.vocab_size)
    sets = []
    for seat in range(seats):
        train = TrainConfig(
            learning_rate=1e-5,
            epochs=10_000,
            batch_size=batch_size,
            max_length=1024,
            seed=seat,
            optimizer=optimizer,
        )
        rng = np.random.default_rng(seat)
        drawn = rows(lengths, max(_ROWS, batch_size), vocabulary=vocabulary, rng=rng, answers=answers)
        head = HeadSpec("generation") if answers else HeadSpec("classification", ("0", "1"))
        pack.join(SeatSpec(f"seat-{seat}", config, train, head, drawn, {}))
        sets.append(drawn)
    return tuple(sets)


def measure(pack: Pack, sets: Sequence[Rows], config: LoraConfig, *, batch_size: int, seconds: float) -> Speed:
    """Time steps of a filled pack for about so many seconds, and the roofs for two thirds of it."""
    base = pack.base
    began = time.perf_counter()
    layers = layers_of(pack, config)
    for _ in range(WARM_STEPS - 1):
        if time.perf_counter() - began < seconds:
            step(pack)
    batch = mean_batch(sets, batch_size)
    parts = max(1, -(-round(batch.tokens) // pack.max_tokens))
    forward = Batch(batch.tokens / parts, batch.sequences / parts, batch.squares / parts)
    dtype = getattr(torch, base.spec.dtype)
    roofs = [Roof(layers, forward, dtype=dtype, device=base.device, torchs=torchs) for torchs in (False, True)]
    for roof in roofs:
        roof.run()
    timed = tokens = examples = steps = 0.0
    roofs_s: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        synchronise(base.device)
        began = time.perf_counter()
        while True:
            more_examples, more_tokens = step(pack)
            examples, tokens, steps = examples + more_examples, tokens + more_tokens, steps + 1
            if time.perf_counter() - began > seconds / ROUNDS:
                break
        synchronise(base.device)
        timed += time.perf_counter() - began
        for roof, roof_s in zip(roofs, roofs_s, strict=True):
            until = time.perf_counter() + seconds / ROUNDS / 3
            while True:
                roof_s.append(roof.run())
                if time.perf_counter() > until:
                    break
    done = Batch(tokens, examples, batch.squares * examples / batch.sequences)
    return Speed(
        seats=len(sets),
        tokens_per_step=tokens / steps,
        step_s=timed / steps,
        examples_per_s=examples / timed,
        tokens_per_s=tokens / timed,
        flops_per_s=flops.step(layers, attention_of(base), done, rank=config.rank) / timed,
        roof_flops_per_s=roofs[0].flops / float(np.median(roofs_s[0])),
        torch_flops_per_s=roofs[1].flops / float(np.median(roofs_s[1])),
        steps=int(steps),
    )


def step(pack: Pack) -> tuple[int, int]:
    """One optimiser step of all seats: examples, tokens. SystemExit where a seat diverges, which would train less."""
    reports = pack.step()
    for name, report in reports.items():
        if report.diverged:
            raise SystemExit(f"{name} diverged in the benchmark: {report.diverged}")
    return sum(report.examples for report in reports.values()), sum(report.tokens for report in reports.values())


def mean_batch(sets: Sequence[Rows], batch_size: int) -> Batch:
    """What a step of all seats reads, on average over an epoch."""
    every = np.concatenate([each.lengths for each in sets]).astype(np.float64)
    sequences = float(batch_size * len(sets))
    return Batch(float(every.mean()) * sequences, sequences, float((every**2).mean()) * sequences)


def layers_of(pack: Pack, config: LoraConfig) -> tuple[Linear, ...]:
    """The base's linear layers as a step computes them; takes one step to see where gradients pass."""
    base = pack.base
    passes: dict[int, bool] = {}

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        passes[id(module)] = inputs[0].requires_grad

    hooks = [layer.register_forward_pre_hook(note) for layer in base.linears.values()]
    step(pack)
    for hook in hooks:
        hook.remove()
    return tuple(
        Linear(
            inputs=layer.in_features,
            outputs=layer.out_features,
            pooled_only=layer.pooled_only,
            backward=passes[id(layer)],
            adapted=name.rsplit(".", 1)[-1] in config.target_modules,
        )
        for name, layer in base.linears.items()
    )


def attention_of(base: Base) -> Attention:
    """The base's attention."""
    config = base.config
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Attention(int(config.num_hidden_layers), heads * size, base.causal)
