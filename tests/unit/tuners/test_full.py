"""Full fine-tuning against a plain transformers loop: padded batches, autograd throughout, the same order of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.unit.tuners.conftest import load_base, without_dropout
from tuners.engine import BaseSpec, Pack, SeatSpec
from tuners.engine.streams import permutation
from tuners.errors import NoRoomError, SeatError, TunerError
from tuners.full.config import Config as FullConfig

STEPS = 60
FAMILIES = ("bert", "roberta", "distilbert", "llama", "qwen3")


def full(seat: Any, **fields: Any) -> SeatSpec:
    spec: SeatSpec = seat("a", config=FullConfig, **({"learning_rate": 1e-3, "weight_decay": 0.1} | fields))
    return spec


def padded(examples: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(examples), max(len(example.ids) for example in examples), dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.from_numpy(example.ids)
    return ids, torch.tensor([example.label for example in examples])


class Plain:
    """What a user's own loop does, from what the seat begins with."""

    def __init__(self, start: Path, spec: SeatSpec) -> None:
        self.spec = spec
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float64).train()
        self.model.config.pad_token_id = 0
        train = spec.train
        groups = [
            {"params": [p for p in self.model.parameters() if (p.dim() > 1) == decays],
             "weight_decay": train.weight_decay if decays else 0.0}
            for decays in (True, False)
        ]  # fmt: skip
        self.optimiser = torch.optim.AdamW(groups, lr=train.learning_rate)
        self.batches = -(-len(spec.train_set) // train.batch_size)
        self.steps = train.epochs * self.batches
        self.done = 0

    def step(self) -> float:
        train = self.spec.train
        epoch, batch = divmod(self.done, self.batches)
        order = permutation(train.seed, epoch, len(self.spec.train_set))
        rows = order[batch * train.batch_size : (batch + 1) * train.batch_size]
        ids, labels = padded([self.spec.train_set[int(row)] for row in rows])
        logits = self.model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        loss = torch.nn.functional.cross_entropy(logits, labels.long())
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = train.learning_rate * (1 - self.done / self.steps)
        self.optimiser.step()
        self.done += 1
        return float(loss.detach())


@pytest.mark.parametrize("family", FAMILIES)
def test_its_losses_are_those_of_a_plain_loop(family: str, tiny: Any, seat: Any, tmp_path: Path) -> None:
    folder = without_dropout(tiny(family), tmp_path / "base")
    # In float64, where rounding cannot be taken for a fault nor a fault for rounding.
    pack, spec = Pack(load_base(BaseSpec(folder, trained=True, dtype="float64"))), full(seat)
    pack.join(spec)
    pack.export("a", tmp_path / "start")
    plain = Plain(tmp_path / "start", spec)
    ours, theirs = zip(*((pack.step()["a"].loss, plain.step()) for _ in range(STEPS)), strict=True)
    assert ours[-1] < ours[0] / 2
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_every_weight_that_the_model_has(family: str, tiny: Any, seat: Any, tmp_path: Path) -> None:
    pack, spec = Pack(load_base(BaseSpec(tiny(family), trained=True))), full(seat, learning_rate=1e-2)
    pack.join(spec)
    pack.export("a", tmp_path / "start")
    for _ in range(20):
        pack.step()
    pack.export("a", tmp_path / "end")
    start, end = (load_file(tmp_path / name / "model.safetensors") for name in ("start", "end"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "end").eval()
    assert start.keys() == set(model.state_dict())
    still = {name for name in end if torch.equal(start[name], end[name])}
    # A key's bias shifts all of a query's scores alike, which no softmax sees; no row here has a second type.
    assert all("key.bias" in name or "k_lin.bias" in name or "token_type" in name for name in still)
    progress = pack.progress("a")
    assert progress.trainable == progress.total == sum(values.numel() for values in end.values())
    ids, _ = padded([spec.eval_sets["dev"][row] for row in range(len(spec.eval_sets["dev"]))])
    model.config.pad_token_id = 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    np.testing.assert_allclose(logits.numpy(), pack.evaluate(["a"])["a"]["dev"].logits, atol=1e-4)


def test_the_next_seat_begins_with_the_checkpoint(tiny: Any, seat: Any) -> None:
    pack = Pack(load_base(BaseSpec(tiny("bert"), trained=True)))

    def losses() -> list[float]:
        pack.join(full(seat))
        found = [pack.step()["a"].loss for _ in range(5)]
        pack.leave("a")
        return found

    assert losses() == losses()


def test_a_pack_holds_one_and_says_so(tiny: Any, seat: Any, base_of: Any) -> None:
    pack = Pack(load_base(BaseSpec(tiny("bert"), trained=True)))
    pack.join(full(seat))
    other = seat("b", config=FullConfig)
    with pytest.raises(NoRoomError, match="'b' trains the base's own weights, as 'a' does"):
        pack.join(other)
    with pytest.raises(SeatError, match="lora"):
        Pack(pack.base).join(seat("b"))
    with pytest.raises(TunerError, match="another seat"):
        Pack(pack.base).join(other)
    with pytest.raises(SeatError, match="full"):
        Pack(base_of("bert")).join(other)


def test_a_seat_that_is_refused_leaves_the_base_as_it_was(tiny: Any, seat: Any) -> None:
    base = load_base(BaseSpec(tiny("bert"), trained=True))
    with pytest.raises(NoRoomError, match="does not fit"):
        Pack(base, memory=1).join(full(seat))
    pack = Pack(base)
    pack.join(full(seat))
    assert not pack.step()["a"].diverged


def test_in_bfloat16_the_masters_are_kept_in_float32(tiny: Any, seat: Any) -> None:
    # A step this small is lost in bfloat16's eight bits, unless the sums are kept elsewhere.
    spec = full(seat, learning_rate=3e-5, schedule="constant", weight_decay=0.0, epochs=200)
    losses = {}
    for dtype in ("float32", "bfloat16"):
        pack = Pack(load_base(BaseSpec(tiny("llama"), trained=True, dtype=dtype)))
        pack.join(spec)
        losses[dtype] = [pack.step()["a"].loss for _ in range(200)]
    first, last = (np.mean(losses["float32"][part]) for part in (slice(20), slice(-20, None)))
    assert last < first
    assert abs(np.mean(losses["bfloat16"][-20:]) - last) < (first - last) / 4


def test_recomputing_gives_the_same_bits(tiny: Any, seat: Any) -> None:
    def losses(*, checkpointing: bool) -> list[float]:
        pack = Pack(load_base(BaseSpec(tiny("bert"), trained=True), checkpointing=checkpointing))
        pack.join(full(seat))
        return [pack.step()["a"].loss for _ in range(5)]

    assert losses(checkpointing=True) == losses(checkpointing=False)


def test_small_forwards_give_the_same_gradients(tiny: Any, seat: Any) -> None:
    base = load_base(BaseSpec(tiny("bert"), trained=True))
    norms = []
    for bound in (None, 20):
        pack = Pack(base, max_tokens=bound)
        pack.join(full(seat))
        norms.append([pack.step()["a"].grad_norm for _ in range(3)])
        pack.leave("a")
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
