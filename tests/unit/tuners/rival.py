"""PEFT in a plain torch loop: padded batches, autograd throughout, and the draws of a seat of the engine."""

# N rows, L tokens of the longest, W elements, H heads

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import peft
import torch
import transformers
from torch import Tensor, nn

from tuners.engine import Base, Pack, SeatSpec
from tuners.engine.export import ROOT
from tuners.engine.head import _SITE as HEAD_SITE
from tuners.engine.streams import _POSITION, keep_pairs, keep_rows, pair_keys, permutation, row_keys


@dataclass(frozen=True)
class Step:
    """One optimiser step of a seat."""

    loss: float
    norm: float
    """Of the gradient, before it is clipped."""
    rate: float
    gradients: dict[str, Tensor]
    """By PEFT's names; not clipped."""
    weights: dict[str, Tensor]
    """The trained ones, by PEFT's names; they change with the next step."""


class Draws:
    """The masks of the present step."""

    keys: Tensor
    """[N] of the rows."""
    lengths: Tensor
    """[N]"""

    def rows(self, x: Tensor, site: int, p: float) -> Tensor:
        """[N, L, W] or [N, W] -> the same with dropout."""
        keys = self.keys
        if x.dim() == 3:
            keys = (keys[:, None] + torch.arange(x.shape[1], device=x.device) * _POSITION).flatten()
        return x * keep_rows(keys, site, x.shape[-1], p).bool().view(x.shape) / (1 - p)


class Given(nn.Module):
    """A dropout whose mask is the engine's."""

    def __init__(self, draws: Draws, site: int, p: float) -> None:
        super().__init__()
        self.draws, self.site, self.p = draws, site, p

    def forward(self, x: Tensor) -> Tensor:
        return self.draws.rows(x, self.site, self.p) if self.training and self.p else x


def _attention(module: Any, q: Tensor, k: Tensor, v: Tensor, _mask: Tensor, dropout: float = 0, **rest: Any) -> Any:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * rest["scaling"]
    hidden = torch.arange(q.shape[2], device=q.device)[None] >= module.draws.lengths[:, None]
    scores = scores.masked_fill(hidden[:, None, None], -math.inf)
    if getattr(module, "is_causal", False):
        later = torch.ones(q.shape[2], q.shape[2], device=q.device).triu(1).bool()
        scores = scores.masked_fill(later, -math.inf)
    probabilities = scores.softmax(-1)
    if dropout:
        keep = keep_pairs(pair_keys(module.draws.keys, module.site, q.shape[1]), q.shape[2], dropout)
        probabilities = probabilities * keep.view(scores.shape).bool() / (1 - dropout)
    return (probabilities @ v).transpose(1, 2), None


transformers.AttentionInterface.register("reference", _attention)


class Rival:
    """PEFT's model, started from a seat's export, with its dropout replaced."""

    def __init__(self, folder: Path, pack: Pack, spec: SeatSpec) -> None:
        base, self.spec, self.draws, self.device = pack.base, spec, Draws(), pack.base.device
        config = transformers.AutoConfig.from_pretrained(base.spec.folder)
        config.num_labels = spec.head.outputs
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base.spec.folder,
            config=config,
            dtype=getattr(torch, base.spec.dtype),
            **self._quantised(pack.base),
        )
        for module in model.modules():
            if isinstance(module, bnb.nn.Linear4bit):
                # Its fast path repacks the weights in an evaluation, and trains on with zero gradients.
                module.support_avx512bf16_for_cpu = False
        self.model = peft.PeftModel.from_pretrained(model, folder, is_trainable=True).to(self.device)
        self.model.train()
        inner = self.model.base_model.model
        backbone = getattr(inner, base.family.prefix)
        backbone.set_attn_implementation("reference")
        names = {name: index for index, (name, _) in enumerate(self._plain_names(base.spec.folder))}
        self._replace(backbone, names)
        if hasattr(inner, "dropout"):
            inner.dropout = Given(self.draws, HEAD_SITE + len(base.family.head) - 1, inner.dropout.p)
        self.weights = {
            name.replace(".default", "").replace(".modules_to_save", ""): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        train = spec.train
        groups = [
            {
                "params": [p for name, p in self.weights.items() if name.endswith("bias") == bias],
                "weight_decay": 0 if bias else train.weight_decay,
            }
            for bias in (False, True)
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=train.learning_rate)
        self.per_epoch = math.ceil(len(spec.train_set) / (train.batch_size * train.accumulation))
        steps = train.epochs * self.per_epoch
        self.schedule = transformers.get_scheduler(
            "constant_with_warmup" if train.schedule == "constant" else train.schedule,
            self.optimiser,
            num_warmup_steps=math.ceil(train.warmup_ratio * steps),
            num_training_steps=steps,
        )

    @staticmethod
    def _quantised(base: Base) -> dict[str, Any]:
        if base.spec.quantisation == "none":
            return {}
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=base.spec.quantisation == "nf4-double",
            bnb_4bit_compute_dtype=getattr(torch, base.spec.dtype),
            llm_int8_skip_modules=["score", "classifier", f"{base.family.prefix}.pooler"],
        )
        return {"quantization_config": config, "device_map": str(base.device)}

    @staticmethod
    def _plain_names(folder: str) -> Any:
        # The engine numbers sites before anything is wrapped, without a pooler of the backbone's own.
        model = transformers.AutoModel.from_pretrained(folder)
        if hasattr(model, "pooler"):
            model.pooler = None
        return list(model.named_modules())

    def _replace(self, backbone: nn.Module, names: dict[str, int]) -> None:
        for name, module in list(backbone.named_modules()):
            if hasattr(module, "is_causal"):
                module.draws, module.site = self.draws, names[name]
            if hasattr(module, "lora_dropout") and "default" in module.lora_dropout:
                p = getattr(module.lora_dropout["default"], "p", 0.0)
                module.lora_dropout["default"] = Given(self.draws, names[name], p)
            elif isinstance(module, nn.Dropout) and "lora" not in name and "pooler" not in name:
                backbone.set_submodule(name, Given(self.draws, names[name], module.p))

    def step(self, step: int) -> Step:
        """One optimiser step, its rows in micro-batches of `batch_size`."""
        train = self.spec.train
        effective = train.batch_size * train.accumulation
        epoch, within = divmod(step, self.per_epoch)
        order = permutation(train.seed, epoch, len(self.spec.train_set))
        rows = [self.spec.train_set[int(i)] for i in order[within * effective : (within + 1) * effective]]
        keys = torch.from_numpy(row_keys(train.seed, step, np.arange(len(rows)))).to(self.device)
        self.optimiser.zero_grad()
        total = 0.0
        for first in range(0, len(rows), train.batch_size):
            micro = rows[first : first + train.batch_size]
            loss = self._loss(micro, keys[first : first + train.batch_size]) * len(micro) / len(rows)
            torch.autograd.backward(loss)
            total += loss.item()
        gradients = {name: weight.grad.clone() for name, weight in self.weights.items() if weight.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), train.clip_norm)
        rate = self.optimiser.param_groups[0]["lr"]
        self.optimiser.step()
        self.schedule.step()
        return Step(total, norm.item(), rate, gradients, {name: p.detach() for name, p in self.weights.items()})

    def _loss(self, rows: list[Any], keys: Tensor) -> Tensor:
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
        lengths = torch.tensor([len(row.ids) for row in rows])
        self.draws.lengths, self.draws.keys = lengths.to(self.device), keys
        labels = torch.tensor([row.label for row in rows], dtype=torch.float64)
        regression = self.spec.head.kind == "regression"
        labels = labels.to(next(iter(self.weights.values())).dtype) if regression else labels.long()
        mask = (torch.arange(longest)[None] < lengths[:, None]).long()
        ids, mask, labels = (x.to(self.device) for x in (ids, mask, labels))
        loss: Tensor = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        return loss


def side_by_side(pack: Pack, spec: SeatSpec, folder: Path, *, steps: int) -> Iterator[tuple[Step, Step]]:
    """The steps of a seat that has not begun, and those of its rival."""
    pack.export(spec.name, folder)
    rival, seat = Rival(folder, pack, spec), pack._seats[spec.name]
    found: list[dict[str, Tensor]] = []
    compute = pack._gradients

    def by_peft_name(values: Tensor) -> dict[str, Tensor]:
        views = seat.row.views(values)
        head = {f"{ROOT}.{segment.name}": views[segment.name] for segment in seat.head.segments}
        return seat.adapter.tensors(views, f"{ROOT}.{pack.base.family.prefix}") | head

    def keeping(batches: Any) -> Any:
        tallies = compute(batches)
        # The update leaves them zero.
        found.append({name: values.clone() for name, values in by_peft_name(seat.row.g).items()})
        return tallies

    pack._gradients = keeping  # type: ignore[method-assign]
    for step in range(steps):
        report = pack.step()[spec.name]
        own = Step(report.loss, report.grad_norm, report.learning_rate, found.pop(), by_peft_name(seat.row.theta))
        yield own, rival.step(step)
