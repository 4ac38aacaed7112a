"""The engine against PEFT in a plain torch loop: padded batches, autograd throughout, the same draws."""

# N rows, L tokens of the longest, W elements, H heads

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from tuners.engine import Pack, SeatSpec
from tuners.engine.head import _SITE as HEAD_SITE
from tuners.engine.streams import _POSITION, keep_attention, keep_rows, permutation, row_keys

STEPS = 50
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""Both add up in another order, and training carries the last bits on. In float64 nothing else is left."""


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
            keys = (keys[:, None] + torch.arange(x.shape[1]) * _POSITION).flatten()
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
    hidden = torch.arange(q.shape[2])[None] >= module.draws.lengths[:, None]
    scores = scores.masked_fill(hidden[:, None, None], -math.inf)
    if getattr(module, "is_causal", False):
        scores = scores.masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1).bool(), -math.inf)
    probabilities = scores.softmax(-1)
    if dropout:
        keep = keep_attention(module.draws.keys, module.site, q.shape[1], q.shape[2], dropout)
        probabilities = probabilities * keep.bool() / (1 - dropout)
    return (probabilities @ v).transpose(1, 2), None


transformers.AttentionInterface.register("reference", _attention)


class Rival:
    """PEFT's model, started from a seat's export, with its dropout replaced."""

    def __init__(self, folder: Path, pack: Pack, spec: SeatSpec) -> None:
        base, self.spec, self.draws = pack.base, spec, Draws()
        config = transformers.AutoConfig.from_pretrained(base.spec.folder)
        config.num_labels = spec.head.outputs
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base.spec.folder, config=config, dtype=getattr(torch, base.spec.dtype)
        )
        self.model = peft.PeftModel.from_pretrained(model, folder, is_trainable=True)
        self.model.train()
        inner = self.model.base_model.model
        backbone = getattr(inner, base.family.prefix)
        backbone.set_attn_implementation("reference")
        names = {name: index for index, (name, _) in enumerate(self._plain_names(base.spec.folder))}
        self._replace(backbone, names)
        if hasattr(inner, "dropout"):
            inner.dropout = Given(self.draws, HEAD_SITE + len(base.family.head) - 1, inner.dropout.p)
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        decay = spec.train.weight_decay
        groups = [
            {"params": [p for name, p in named if name.endswith("bias") == bias], "weight_decay": 0 if bias else decay}
            for bias in (False, True)
        ]
        self.parameters = [p for _, p in named]
        self.optimiser = torch.optim.AdamW(groups, lr=spec.train.learning_rate)

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

    def step(self, step: int, rate: float) -> tuple[float, float]:
        train = self.spec.train
        per_epoch = math.ceil(len(self.spec.train_set) / train.batch_size)
        epoch, within = divmod(step, per_epoch)
        order = permutation(train.seed, epoch, len(self.spec.train_set))
        rows = [self.spec.train_set[int(i)] for i in order[within * train.batch_size : (within + 1) * train.batch_size]]
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
        self.draws.lengths = torch.tensor([len(row.ids) for row in rows])
        self.draws.keys = torch.from_numpy(row_keys(train.seed, step, np.arange(len(rows))))
        labels = torch.tensor([row.label for row in rows], dtype=self.parameters[0].dtype)
        labels = labels if self.spec.head.kind == "regression" else labels.long()
        mask = (torch.arange(longest)[None] < self.draws.lengths[:, None]).long()
        out = self.model(input_ids=ids, attention_mask=mask, labels=labels)
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, train.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        return out.loss.item(), norm.item()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", {"dropout": 0.1, "rank": 4}),
        ("bert", {"dropout": 0.2, "rank": 8, "target_modules": ("query", "key", "value", "dense"), "classes": 3}),
        ("bert", {"classes": 1, "clip_norm": 0.3, "schedule": "cosine"}),
        ("llama", {"dropout": 0.1, "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")}),
        ("qwen2", {"dropout": 0.1, "rank": 3, "classes": 3}),
    ],
    ids=["bert", "bert-all-layers", "bert-regression", "llama", "qwen2"],
)
def test_a_seat_in_a_pack_trains_as_peft_does(
    family: str, fields: dict[str, Any], dtype: str, base_of: Any, seat: Any, tmp_path: Path
) -> None:
    pack, tolerance = Pack(base_of(family, dtype=dtype)), TOLERANCE[dtype]
    spec = seat("a", seed=11, weight_decay=0.05, warmup_ratio=0.1, batch_size=7, epochs=9, **fields)
    pack.join(seat("beside", rank=2, seed=3, dropout=0.3, batch_size=5))
    pack.join(spec)
    pack.export("a", tmp_path)
    rival = Rival(tmp_path, pack, spec)
    for step in range(STEPS):
        report = pack.step()["a"]
        loss, norm = rival.step(step, report.learning_rate)
        assert report.loss == pytest.approx(loss, abs=tolerance), f"step {step}"
        assert report.grad_norm == pytest.approx(norm, rel=10 * tolerance, abs=tolerance), f"step {step}"
    assert pack.progress("a").finished == (pack.progress("a").steps == STEPS)
