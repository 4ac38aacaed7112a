"""Record learning curves of classification heads on a frozen model's features: a large grid in a minute.

    python -m benchmarks.record_heads --task sst2 --data DIR

A head is a hidden layer with GELU and dropout over the mean of MiniLM's last hidden states, which are computed once;
AdamW with a linear schedule trains it. All heads of one shape are trained side by side. Writes
benchmarks/curves/TASK-heads.csv (or --name), which benchmarks.search replays; a grid that was begun is gone on with.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel

from benchmarks import learning_curves
from benchmarks.learning_curves import Axes, Cell, Curve
from benchmarks.trials import options
from benchmarks.trials.workload import Tokens
from tunery import tasks

# S heads, N rows, B rows of a batch, I features, H hidden units, C classes
AXES: Axes = {
    "train.learning_rate": tuple(float(f"{1e-4 * 10 ** (step / 4):.3g}") for step in range(14)),
    "train.batch_size": (16, 64, 256),
    "head.width": (8, 32, 128),
    "head.dropout": (0.0, 0.25, 0.5),
}
EPOCHS = 27
WEIGHT_DECAY = 0.01


class Features(NamedTuple):
    """A split as the frozen model sees it: features [N, I] and labels [N]."""

    features: Tensor
    labels: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options.parser(str(__doc__).partition("\n")[0])
    parser.add_argument("--task", default="sst2")
    parser.set_defaults(max_train=1000, epochs=EPOCHS)
    chosen = parser.parse_args(arguments)
    work, name = options.workload(chosen, chosen.task), chosen.name or f"{chosen.task}-heads"
    waiting = learning_curves.missing(name, AXES)
    print(f"{len(waiting)} configurations to record", flush=True)
    model = AutoModel.from_pretrained(work.model).eval()
    split = tasks.get(chosen.task).eval_splits[0].name
    train, dev = features(model, work.train_set), features(model, work.eval_sets[split])
    for (batch_size, width), group in itertools.groupby(sorted(waiting, key=_shape), key=_shape):
        began = time.perf_counter()
        learning_curves.append(name, AXES, record(list(group), int(batch_size), int(width), train, dev, chosen.epochs))
        print(f"batch size {batch_size:g}, width {width:g}: {time.perf_counter() - began:.1f} s", flush=True)


def _shape(cell: Cell) -> tuple[float, float]:
    return cell[1], cell[2]


@torch.no_grad()
def features(model: torch.nn.Module, tokens: Tokens) -> Features:
    """The mean of the last hidden states of every row."""
    x_NI = [model(input_ids=torch.tensor(row.ids[None]).long()).last_hidden_state[0].mean(0) for row in tokens.examples]
    return Features(torch.stack(x_NI), torch.tensor([int(row.label) for row in tokens.examples]))


def record(cells: Sequence[Cell], size: int, width: int, train: Features, dev: Features, epochs: int) -> list[Curve]:
    """Train the heads of one shape, which differ in their rates and dropout; one seed for all."""
    began = time.perf_counter()
    draw = torch.Generator().manual_seed(0)
    S, classes = len(cells), int(train.labels.max()) + 1
    rate_S, keep_S = (torch.tensor([cell[axis] for cell in cells])[:, None, None] for axis in (0, 3))
    keep_S = 1 - keep_S
    shapes = (train.features.shape[1], width), (1, width), (width, classes), (1, classes)
    weights = [torch.randn(shape, generator=draw) / shape[0] ** 0.5 * (shape[0] > 1) for shape in shapes]
    weights = [weight.repeat(S, 1, 1).requires_grad_() for weight in weights]
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    scores: list[Tensor] = []
    step, steps = 0, epochs * -(-len(train.features) // size)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(train.features), generator=draw), size):
            mask_SBH = (torch.rand((1, len(batch), width), generator=draw) < keep_S) / keep_S
            logits_SBC = _logits(train.features[batch], weights, mask_SBH)
            labels_B = train.labels[batch]
            losses_S = functional.cross_entropy(
                logits_SBC.transpose(1, 2), labels_B.expand(S, -1), reduction="none"
            ).mean(1)
            gradients = torch.autograd.grad(losses_S.sum(), weights)
            step += 1
            _adamw(weights, gradients, moments, rate_S * (1 - (step - 1) / steps), step)
        with torch.no_grad():
            right_SN = _logits(dev.features, weights, None).argmax(2) == dev.labels
            scores.append(right_SN.float().mean(1))
    seconds = (time.perf_counter() - began) / S
    return [Curve(cell, tuple(float(score[place]) for score in scores), seconds) for place, cell in enumerate(cells)]


def _logits(x_NI: Tensor, weights: Sequence[Tensor], mask_SNH: Tensor | None) -> Tensor:
    a_SIH, b_S1H, c_SHC, d_S1C = weights
    h_SNH = functional.gelu(x_NI @ a_SIH + b_S1H)
    return (h_SNH if mask_SNH is None else h_SNH * mask_SNH) @ c_SHC + d_S1C


@torch.no_grad()
def _adamw(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[tuple[Tensor, Tensor]],
    rate_S: Tensor,
    step: int,
) -> None:
    """One step of AdamW with a rate a head."""
    for weight, gradient, (first, second) in zip(weights, gradients, moments, strict=True):
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient * gradient, 0.001)
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        weight.mul_(1 - rate_S * WEIGHT_DECAY).sub_(rate_S * update)


if __name__ == "__main__":
    main()
